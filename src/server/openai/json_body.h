// A request's body as JSON: stricter than a parser needs to be, so that no two readers of it can differ.
#pragma once

#include <string_view>

#include "base/json.h"

namespace idefics::openai {

struct JsonLimits {
  size_t depth = 64;
  size_t nodes = 1'000'000;
  size_t keys = 10'000;  // of one object
};

// The one value that `text` holds. ApiError 400 invalid_json: not JSON, not UTF-8, a byte order mark, text behind it, a
// key that comes twice, a number beyond double, over a limit. Linear in the text but for sorting the keys of an object.
json::value parse_body(std::string_view text, const JsonLimits& limits = {});

}  // namespace idefics::openai
