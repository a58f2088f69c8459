// The web page: files that are part of the program.
#pragma once

#include <string_view>

#include "server/http/message.h"

namespace idefics::page {

// The file of "/", "/page/style.css" and so on, with headers under which a browser runs and fetches nothing but what
// comes from this server. 404 without a body for other paths.
http::Response respond(std::string_view path);

}  // namespace idefics::page
