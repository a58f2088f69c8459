// What Python's str methods know about characters: properties and full case mappings of Unicode 14.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace idefics::jinja {

bool is_space(char32_t c);  // str.isspace, and the blanks that strip() and split() remove
bool is_alpha(char32_t c);
bool is_decimal(char32_t c);
std::optional<int> decimal_value(char32_t c);
bool is_digit(char32_t c);
bool is_numeric(char32_t c);
bool is_printable(char32_t c);  // what repr() leaves as it is
bool is_upper(char32_t c);
bool is_lower(char32_t c);
bool is_title(char32_t c);
bool is_cased(char32_t c);
bool is_case_ignorable(char32_t c);
inline bool is_alnum(char32_t c) { return is_alpha(c) || is_numeric(c); }

// The ends of a line for str.splitlines. "\r\n" counts as one, which the caller sees to.
bool is_line_end(char32_t c);

// The full mapping of one character as UTF-8, up to three characters. The final sigma is the caller's business.
std::string to_upper(char32_t c);
std::string to_lower(char32_t c);
std::string to_title(char32_t c);

}  // namespace idefics::jinja
