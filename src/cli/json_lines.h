// Texts and token ids as JSON, for the verbs that turn one into the other.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace idefics::cli {

// The longest text that is read from standard input, bytes.
inline constexpr uint64_t kMaxInputBytes = uint64_t{1} << 26;

// Calls `answer` with the JSON value of each line of standard input, and prints what it returns as a line. Errors name
// the line: kInvalidValue when it is not JSON, and those of `answer`.
void for_each_line(const std::function<std::string(const json::value& value, const std::string& where)>& answer);

// Errors: kInvalidValue, saying that `where` should hold a string or an array of token ids.
std::string to_text(const json::value& value, const std::string& where);
std::vector<int32_t> to_ids(const json::value& value, const std::string& where);

}  // namespace idefics::cli
