// The texts of JSON numbers within bounds, compared digit by digit.
#pragma once

#include <optional>
#include <string>

#include "base/json.h"
#include "grammar/automaton.h"

namespace idefics::grammar {

// A decimal number, exactly: no leading zeros in `whole` (but "0"), no trailing ones in `fraction`.
struct Decimal {
  bool negative = false;
  std::string whole = "0", fraction;
  bool is_zero() const { return whole == "0" && fraction.empty(); }
};

// What a JSON number says in its shortest spelling. Nothing for other values.
std::optional<Decimal> to_decimal(const json::value& number);
// -1, 0, 1 as a is less than, equal to, greater than b.
int compare(const Decimal& a, const Decimal& b);

struct NumberBounds {
  std::optional<Decimal> low, high;
  bool low_exclusive = false, high_exclusive = false;
};

// Without sign, leading zeros, fraction or exponent beyond need: 0 or [-]ddd.
//
// Integers have at most 18 digits, so that each fits 64 bits. Numbers have at most 15 digits, and at most 6 after the
// point unless a bound has more: then no two of them are the same double, and comparing decimals is comparing doubles.
// Errors: kSchemaInvalid for bounds with more digits than that; `where` names the schema.
Expr integers(const NumberBounds& bounds, const std::string& where);
Expr numbers(const NumberBounds& bounds, const std::string& where);
// Any number, exponents too.
Expr any_number();

// [-]ddd that are multiples of `divisor`, 1 to kMaxDivisor.
constexpr int kMaxDivisor = 10'000;
Dfa multiples(int divisor);

}  // namespace idefics::grammar
