#include "text/jinja/numbers.h"

#include <charconv>
#include <cmath>
#include <cstdio>
#include <string>
#include <utility>

#include "base/utf8.h"
#include "text/jinja/unicode.h"

namespace idefics::jinja {
namespace {

[[noreturn]] void fail_range() { fail("a whole number goes beyond 64 bits"); }

// With the decimal digits of all scripts as 0 to 9.
std::string with_ascii_digits(std::string_view text) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const CodePoint c = decode_utf8(text, at);
    const auto value = c.value < 0x80 ? std::nullopt : decimal_value(c.value);
    if (value.has_value()) {
      out += static_cast<char>('0' + *value);
    } else {
      out += text.substr(at, static_cast<size_t>(c.length));
    }
    at += static_cast<size_t>(c.length);
  }
  return out;
}

std::string_view strip(std::string_view text) {
  while (!text.empty()) {
    const CodePoint c = decode_utf8(text, 0);
    if (!is_space(c.value)) break;
    text.remove_prefix(static_cast<size_t>(c.length));
  }
  while (!text.empty()) {
    size_t start = text.size() - 1;
    while (start > 0 && (static_cast<unsigned char>(text[start]) & 0xc0) == 0x80) --start;
    if (!is_space(decode_utf8(text, start).value)) break;
    text.remove_suffix(text.size() - start);
  }
  return text;
}

// The value of a digit in bases up to 36, or 36.
int digit_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'z') return c - 'a' + 10;
  if (c >= 'A' && c <= 'Z') return c - 'A' + 10;
  return 36;
}

// Removes underscores between digits; nothing when one stands elsewhere.
std::optional<std::string> without_underscores(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '_') {
      out += text[i];
      continue;
    }
    const bool between = i > 0 && i + 1 < text.size() && digit_value(text[i - 1]) < 36 && digit_value(text[i + 1]) < 36;
    if (!between) return std::nullopt;
  }
  return out;
}

// "0x" and the like select or confirm a base.
int64_t take_prefix(std::string_view& text, int64_t base) {
  if (text.size() < 2 || text[0] != '0') return base == 0 ? 10 : base;
  const char letter = static_cast<char>(text[1] | 0x20);
  const int64_t named = letter == 'x' ? 16 : letter == 'o' ? 8 : letter == 'b' ? 2 : 0;
  if (named == 0 || (base != 0 && base != named)) return base == 0 ? 10 : base;
  text.remove_prefix(2);
  if (!text.empty() && text[0] == '_') text.remove_prefix(1);
  return named;
}

}  // namespace

std::optional<int64_t> parse_int(std::string_view text, int64_t base) {
  if (base != 0 && (base < 2 || base > 36)) return std::nullopt;
  const std::string ascii = with_ascii_digits(strip(text));
  text = ascii;
  bool negative = false;
  if (!text.empty() && (text[0] == '+' || text[0] == '-')) {
    negative = text[0] == '-';
    text.remove_prefix(1);
  }
  base = take_prefix(text, base);
  const auto digits = without_underscores(text);
  if (!digits.has_value() || digits->empty()) return std::nullopt;
  int64_t value = 0;
  bool too_large = false;
  for (const char c : *digits) {
    const int digit = digit_value(c);
    if (digit >= base) return std::nullopt;
    too_large =
        too_large || __builtin_mul_overflow(value, base, &value) || __builtin_sub_overflow(value, digit, &value);
  }
  if (too_large || (!negative && value == INT64_MIN)) fail_range();
  return negative ? value : -value;
}

std::optional<double> parse_float(std::string_view text) {
  const auto digits = without_underscores(with_ascii_digits(strip(text)));
  if (!digits.has_value() || digits->empty()) return std::nullopt;
  std::string_view number = *digits;
  if (number[0] == '+') number.remove_prefix(1);
  if (number.empty() || number[0] == '+' || (number[0] == '-' && digits->front() == '+')) return std::nullopt;
  double value = 0;
  const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), value);
  if (end != number.data() + number.size() || number.back() == ')') return std::nullopt;  // "nan(...)" is C's
  if (error == std::errc::result_out_of_range) {
    // from_chars does not say which way: too small gives 0, too large infinity.
    const size_t e = number.find_first_of("eE");
    const bool small =
        (e != std::string_view::npos && number[e + 1] == '-') || number.find_first_of("123456789") > number.find('.');
    value = small ? 0.0 : HUGE_VAL;
    return number[0] == '-' ? -value : value;
  }
  if (error != std::errc()) return std::nullopt;
  return value;
}

int64_t truncate_to_int(double value) {
  if (!std::isfinite(value)) fail("cannot make a whole number of an infinite or undefined one");
  if (!(value >= -0x1p63 && value < 0x1p63)) fail_range();
  return static_cast<int64_t>(value);
}

double round_float(double value, int64_t digits) {
  if (!std::isfinite(value) || digits > 323) return value;
  if (digits < -308) return std::copysign(0.0, value);
  if (digits >= 0) {
    // printf rounds the exact binary value, ties to even: just what Python does.
    char text[700];  // up to 309 digits before the point and 323 behind it
    const int size = std::snprintf(text, sizeof text, "%.*f", static_cast<int>(digits), value);
    double out = 0;
    std::from_chars(text, text + size, out);
    return out;
  }
  const double unit = std::pow(10.0, static_cast<double>(-digits));
  return std::nearbyint(value / unit) * unit;
}

int64_t add_ints(int64_t a, int64_t b) {
  int64_t out = 0;
  if (__builtin_add_overflow(a, b, &out)) fail_range();
  return out;
}

int64_t subtract_ints(int64_t a, int64_t b) {
  int64_t out = 0;
  if (__builtin_sub_overflow(a, b, &out)) fail_range();
  return out;
}

int64_t multiply_ints(int64_t a, int64_t b) {
  int64_t out = 0;
  if (__builtin_mul_overflow(a, b, &out)) fail_range();
  return out;
}

int64_t power_ints(int64_t a, int64_t b) {
  int64_t out = 1;
  while (b > 0) {
    if ((b & 1) != 0) out = multiply_ints(out, a);
    b >>= 1;
    if (b > 0) a = multiply_ints(a, a);
  }
  return out;
}

int64_t floor_divide(int64_t a, int64_t b) {
  if (b == 0) fail("division by zero");
  if (b == -1) return subtract_ints(0, a);
  const int64_t quotient = a / b;
  return quotient - ((a % b != 0 && (a < 0) != (b < 0)) ? 1 : 0);
}

int64_t floor_modulo(int64_t a, int64_t b) {
  if (b == 0) fail("division by zero");
  if (b == -1) return 0;
  const int64_t rest = a % b;
  return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
}

namespace {

// Quotient and rest in the very steps of CPython, whose roundings show in large quotients.
std::pair<double, double> float_divmod(double a, double b) {
  if (b == 0) fail("division by zero");
  double rest = std::fmod(a, b);
  double quotient = (a - rest) / b;
  if (rest == 0) {
    rest = std::copysign(0.0, b);
  } else if ((b < 0) != (rest < 0)) {
    rest += b;
    quotient -= 1.0;
  }
  if (quotient == 0) return {std::copysign(0.0, a / b), rest};
  const double down = std::floor(quotient);
  return {quotient - down > 0.5 ? down + 1.0 : down, rest};
}

}  // namespace

double floor_divide(double a, double b) { return float_divmod(a, b).first; }
double floor_modulo(double a, double b) { return float_divmod(a, b).second; }

}  // namespace idefics::jinja
