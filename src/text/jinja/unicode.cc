#include "text/jinja/unicode.h"

#include <algorithm>
#include <cstdint>
#include <iterator>

#include "base/utf8.h"

namespace idefics::jinja {
namespace {

// Every stride-th code point of [first, last]. Tables are sorted and their runs disjoint.
struct Run {
  uint32_t first, last;
  uint8_t stride;
};
struct MappingRun {
  uint32_t first, last;
  uint8_t stride;
  int32_t delta;  // added to the code point
};
struct SpecialMapping {
  uint32_t code_point;
  const char* text;  // UTF-8
};

#include "text/jinja/unicode_data.inc"

template <typename Table>
auto find_run(const Table& table, char32_t c) -> decltype(&table[0]) {
  const auto after = std::upper_bound(std::begin(table), std::end(table), c,
                                      [](char32_t value, const auto& run) { return value < run.first; });
  if (after == std::begin(table)) return nullptr;
  const auto run = std::prev(after);
  return c <= run->last && (c - run->first) % run->stride == 0 ? &*run : nullptr;
}

template <typename Special, typename Mapping>
std::string map(const Special& special, const Mapping& mapping, char32_t c) {
  const auto at =
      std::lower_bound(std::begin(special), std::end(special), c,
                       [](const SpecialMapping& entry, char32_t value) { return entry.code_point < value; });
  if (at != std::end(special) && at->code_point == c) return at->text;
  const auto* run = find_run(mapping, c);
  std::string out;
  append_utf8(out, run == nullptr ? c : static_cast<char32_t>(static_cast<int64_t>(c) + run->delta));
  return out;
}

}  // namespace

bool is_space(char32_t c) {
  if (c < 0x80) return (c >= 9 && c <= 13) || (c >= 0x1c && c <= 0x20);
  return c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 ||
         c == 0x202f || c == 0x205f || c == 0x3000;
}

bool is_line_end(char32_t c) {
  return (c >= 10 && c <= 13) || (c >= 0x1c && c <= 0x1e) || c == 0x85 || c == 0x2028 || c == 0x2029;
}

bool is_alpha(char32_t c) { return find_run(kAlpha, c) != nullptr; }
bool is_decimal(char32_t c) { return find_run(kDecimal, c) != nullptr; }

std::optional<int> decimal_value(char32_t c) {
  const Run* run = find_run(kDecimal, c);  // every run begins with a zero
  return run == nullptr ? std::nullopt : std::optional<int>(static_cast<int>((c - run->first) % 10));
}

bool is_digit(char32_t c) { return find_run(kDigit, c) != nullptr; }
bool is_numeric(char32_t c) { return find_run(kNumeric, c) != nullptr; }
bool is_printable(char32_t c) { return find_run(kPrintable, c) != nullptr; }
bool is_upper(char32_t c) { return find_run(kUpper, c) != nullptr; }
bool is_lower(char32_t c) { return find_run(kLower, c) != nullptr; }
bool is_title(char32_t c) { return find_run(kTitle, c) != nullptr; }
bool is_cased(char32_t c) { return is_lower(c) || is_upper(c) || is_title(c); }
bool is_case_ignorable(char32_t c) { return find_run(kCaseIgnorable, c) != nullptr; }

std::string to_upper(char32_t c) {
  if (c < 0x80) return std::string(1, static_cast<char>(c >= 'a' && c <= 'z' ? c - 32 : c));
  return map(kToUpperSpecial, kToUpper, c);
}

std::string to_lower(char32_t c) {
  if (c < 0x80) return std::string(1, static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c));
  return map(kToLowerSpecial, kToLower, c);
}

std::string to_title(char32_t c) { return c < 0x80 ? to_upper(c) : map(kToTitleSpecial, kToTitle, c); }

}  // namespace idefics::jinja
