// Numbers as Python reads and rounds them.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "text/jinja/value.h"

namespace idefics::jinja {

// int(text, base) with its blanks, sign, underscores and prefixes; base 0 goes by the prefix. Nothing when Python
// raises ValueError. Errors: a number beyond 64 bits.
std::optional<int64_t> parse_int(std::string_view text, int64_t base = 10);
// float(text); nothing when Python raises ValueError.
std::optional<double> parse_float(std::string_view text);
// int(x) of a float. Errors: not finite, beyond 64 bits.
int64_t truncate_to_int(double value);
// round(x, digits): to the nearest, ties to even, of the exact binary value.
double round_float(double value, int64_t digits);

// a + b, a - b, a * b. Errors: beyond 64 bits.
int64_t add_ints(int64_t a, int64_t b);
int64_t subtract_ints(int64_t a, int64_t b);
int64_t multiply_ints(int64_t a, int64_t b);
// a ** b for b >= 0.
int64_t power_ints(int64_t a, int64_t b);
// Floor division and its remainder. Errors: division by zero.
int64_t floor_divide(int64_t a, int64_t b);
int64_t floor_modulo(int64_t a, int64_t b);
double floor_divide(double a, double b);
double floor_modulo(double a, double b);

}  // namespace idefics::jinja
