// Picture files on the command line.
#pragma once

#include <span>
#include <string>

#include "cli/messages_file.h"
#include "idefics/error.h"

namespace idefics::cli {

// The bytes of a picture file; "-" is standard input. Looks at the header, so that a wrong file is refused before a
// model is loaded. Errors: kIo, kImageInvalid, kImageTooLarge, naming the file.
std::string read_picture(const std::string& path);

// The engine knows pictures by number, people know them by file: throws `error` again, with the name of the damaged
// picture's file when it was about a picture.
[[noreturn]] void blame_picture(const Error& error, const Conversation& conversation);

}  // namespace idefics::cli
