#include "cli/json_lines.h"

#include <fmt/format.h>

#include <iostream>

#include "cli/terminal.h"

namespace idefics::cli {

void for_each_line(const std::function<std::string(const json::value&, const std::string&)>& answer) {
  std::string line;
  for (int64_t number = 1; std::getline(std::cin, line); ++number) {
    const std::string where = fmt::format("standard input, line {}", number);
    print(answer(parse_json(line, where, ErrorCode::kInvalidValue), where) + "\n");
  }
}

std::string to_text(const json::value& value, const std::string& where) {
  if (value.is_string()) return std::string(value.as_string());
  throw Error(ErrorCode::kInvalidValue, fmt::format("{}: is {}, wanted a JSON string", where, describe(value)));
}

std::vector<int32_t> to_ids(const json::value& value, const std::string& where) {
  std::vector<int32_t> ids;
  const auto refuse = [&](const json::value& found) {
    throw Error(ErrorCode::kInvalidValue,
                fmt::format("{}: holds {}, wanted an array of token ids like [1, 2]", where, describe(found)));
  };
  if (!value.is_array()) refuse(value);
  for (const json::value& id : value.as_array()) {
    if (!id.is_int64() || id.as_int64() < 0 || id.as_int64() > INT32_MAX) refuse(id);
    ids.push_back(static_cast<int32_t>(id.as_int64()));
  }
  return ids;
}

}  // namespace idefics::cli
