#include "grammar/number_range.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <tuple>

namespace idefics::grammar {

namespace {

constexpr size_t kIntegerDigits = 18, kNumberDigits = 15, kFractionDigits = 6;

Expr digit_range(char low, char high) { return byte_range(static_cast<uint8_t>(low), static_cast<uint8_t>(high)); }

// From sign, digits and a power of ten.
Decimal normalize(bool negative, std::string digits, long point) {
  if (point < 0) {
    digits.insert(0, static_cast<size_t>(-point), '0');
    point = 0;
  }
  if (static_cast<size_t>(point) > digits.size()) digits.append(static_cast<size_t>(point) - digits.size(), '0');
  Decimal d;
  d.negative = negative;
  d.whole = digits.substr(0, static_cast<size_t>(point));
  d.fraction = digits.substr(static_cast<size_t>(point));
  d.whole.erase(0, std::min(d.whole.find_first_not_of('0'), d.whole.size()));
  if (d.whole.empty()) d.whole = "0";
  while (!d.fraction.empty() && d.fraction.back() == '0') d.fraction.pop_back();
  if (d.is_zero()) d.negative = false;
  return d;
}

// A bound of magnitudes: digits before and after the point.
struct Bound {
  std::string whole, fraction;
  bool exclusive = false;
};

bool all_zero(std::string_view digits) { return digits.find_first_not_of('0') == std::string_view::npos; }

int compare_magnitude(const Decimal& a, const Decimal& b) {
  if (a.whole.size() != b.whole.size()) return a.whole.size() < b.whole.size() ? -1 : 1;
  if (const int c = a.whole.compare(b.whole); c != 0) return c < 0 ? -1 : 1;
  const int c = a.fraction.compare(b.fraction);  // no trailing zeros: a prefix is less
  return c == 0 ? 0 : c < 0 ? -1 : 1;
}

// The numbers of exactly `whole` digits before the point and at most `fraction` after it, between two digit strings of
// whole + fraction digits. A state remembers how many digits were read and whether they are those of the bounds so far.
class DigitWalk {
 public:
  DigitWalk(size_t whole, size_t fraction, const Bound& low, const Bound& high)
      : whole_(whole),
        fraction_(fraction),
        low_(pad(low)),
        high_(pad(high)),
        low_exclusive_(low.exclusive),
        high_exclusive_(high.exclusive) {}

  Dfa run() {
    state({0, true, true, false});
    for (size_t i = 0; i < keys_.size(); ++i) expand(i);
    return std::move(dfa_);
  }

 private:
  using Key = std::tuple<size_t, bool, bool, bool>;  // digits read, at low, at high, just after the point

  std::string pad(const Bound& b) const {
    std::string digits = b.whole + b.fraction;
    digits.resize(whole_ + fraction_, '0');
    return digits;
  }

  StateId state(const Key& key) {
    const auto [it, inserted] = ids_.try_emplace(key, static_cast<StateId>(keys_.size()));
    if (inserted) {
      keys_.push_back(key);
      dfa_.states.emplace_back();
    }
    return it->second;
  }

  bool may_end(const Key& key) const {
    const auto& [read, at_low, at_high, after_point] = key;
    if (read < whole_ || after_point) return false;
    const std::string_view low = std::string_view(low_).substr(read), high = std::string_view(high_).substr(read);
    if (at_low && (!all_zero(low) || low_exclusive_)) return false;
    return !(at_high && all_zero(high) && high_exclusive_);
  }

  void expand(size_t i) {
    const Key key = keys_[i];
    const auto& [read, at_low, at_high, after_point] = key;
    dfa_.states[i].final = may_end(key);
    if (read == whole_ && fraction_ > 0 && !after_point) {
      const StateId to = state({read, at_low, at_high, true});
      dfa_.states[i].edges.push_back({'.', '.', to});
      return;
    }
    if (read >= whole_ + fraction_) return;
    const char first = at_low ? low_[read] : '0', last = at_high ? high_[read] : '9';
    for (char c = first; c <= last; ++c) {
      const StateId to = state({read + 1, at_low && c == first, at_high && c == last, false});
      dfa_.states[i].edges.push_back({static_cast<uint8_t>(c), static_cast<uint8_t>(c), to});
    }
  }

  size_t whole_, fraction_;
  std::string low_, high_;
  bool low_exclusive_, high_exclusive_;
  Dfa dfa_;
  std::map<Key, StateId> ids_;
  std::vector<Key> keys_;
};

struct Shape {
  size_t digits;        // at most, in all
  size_t fraction;      // digits after the point that are offered where there is room
  size_t min_fraction;  // that the bounds have
};

// Magnitudes from low to high; no high: as far as the digits reach.
Expr magnitudes(const Bound& low, const std::optional<Bound>& high, const Shape& shape) {
  const size_t max_whole = shape.digits - shape.min_fraction;
  Bound top = high ? *high : Bound{std::string(max_whole, '9'), "", false};
  if (top.whole.size() > max_whole) top = {std::string(max_whole, '9'), "", false};
  std::vector<Expr> parts;
  for (size_t whole = low.whole.size(); whole <= top.whole.size(); ++whole) {
    const size_t room = shape.digits - whole;
    const size_t fraction = std::max(shape.min_fraction, std::min(shape.fraction, room));
    Bound from = low, to = top;
    if (whole > low.whole.size()) from = {"1" + std::string(whole - 1, '0'), "", false};
    if (whole < top.whole.size()) to = {std::string(whole, '9'), std::string(fraction, '9'), false};
    parts.push_back(automaton(DigitWalk(whole, fraction, from, to).run()));
  }
  return choice(std::move(parts));
}

Bound magnitude(const Decimal& d, bool exclusive) { return {d.whole, d.fraction, exclusive}; }

Expr within(const NumberBounds& bounds, const Shape& shape, const std::string& where) {
  const auto& [low, high, low_exclusive, high_exclusive] = bounds;
  const size_t max_whole = shape.digits - shape.min_fraction;
  const auto too_far = [&](const Decimal& d) { return d.whole.size() > max_whole; };
  if ((low && !low->negative && too_far(*low)) || (high && high->negative && too_far(*high))) {
    fail(fmt::format("{}: a bound has more than {} digits before the point", where, max_whole));
  }
  if (low && high && compare(*low, *high) > 0) return nothing();
  std::vector<Expr> parts;
  if (!high || !high->negative) {
    const Bound from = low && !low->negative ? magnitude(*low, low_exclusive) : Bound{"0", "", false};
    std::optional<Bound> to;
    if (high) to = magnitude(*high, high_exclusive);
    parts.push_back(magnitudes(from, to, shape));
  }
  if (!low || low->negative) {
    // Not zero: there is one zero, without sign.
    const Bound from = high && high->negative ? magnitude(*high, high_exclusive) : Bound{"0", "", true};
    std::optional<Bound> to;
    if (low) to = magnitude(*low, low_exclusive);
    parts.push_back(sequence({text("-"), magnitudes(from, to, shape)}));
  }
  return choice(std::move(parts));
}

// The same bound for whole numbers: what lies between two of them is moved to one of them. `is_low` and the sign say
// whether that is towards zero.
void make_whole(std::optional<Decimal>& bound, bool& exclusive, bool is_low) {
  if (!bound || bound->fraction.empty()) return;
  bound->fraction.clear();
  exclusive = bound->negative != is_low;  // cut off towards zero: inside of the bound's far side, or just outside
  if (bound->is_zero()) bound->negative = false;
}

}  // namespace

std::optional<Decimal> to_decimal(const json::value& number) {
  std::string text;
  if (const int64_t* i = number.if_int64()) {
    text = fmt::format("{}", *i);
  } else if (const uint64_t* u = number.if_uint64()) {
    text = fmt::format("{}", *u);
  } else if (const double* d = number.if_double(); d != nullptr && std::isfinite(*d)) {
    text = fmt::format("{}", *d);
  } else {
    return std::nullopt;
  }
  const bool negative = text[0] == '-';
  std::string digits;
  long point = -1, exponent = 0;
  for (size_t i = negative ? 1 : 0; i < text.size(); ++i) {
    if (text[i] == '.') {
      point = static_cast<long>(digits.size());
    } else if (text[i] == 'e') {
      exponent = std::stol(text.substr(i + 1));
      break;
    } else {
      digits.push_back(text[i]);
    }
  }
  if (point < 0) point = static_cast<long>(digits.size());
  return normalize(negative, std::move(digits), point + exponent);
}

int compare(const Decimal& a, const Decimal& b) {
  if (a.negative != b.negative) return a.negative ? -1 : 1;
  const int c = compare_magnitude(a, b);
  return a.negative ? -c : c;
}

Expr integers(const NumberBounds& bounds, const std::string& where) {
  NumberBounds whole = bounds;
  make_whole(whole.low, whole.low_exclusive, true);
  make_whole(whole.high, whole.high_exclusive, false);
  return within(whole, {kIntegerDigits, 0, 0}, where);
}

Expr numbers(const NumberBounds& bounds, const std::string& where) {
  size_t fraction = 0;
  for (const auto* bound : {&bounds.low, &bounds.high}) {
    if (*bound) fraction = std::max(fraction, (*bound)->fraction.size());
  }
  if (fraction >= kNumberDigits) {
    fail(fmt::format("{}: a bound has more than {} digits after the point", where, kNumberDigits - 1));
  }
  return within(bounds, {kNumberDigits, std::max(fraction, kFractionDigits), fraction}, where);
}

Expr any_number() {
  const Expr digit = digit_range('0', '9');
  const Expr whole = choice({text("0"), sequence({digit_range('1', '9'), repeat(digit, 0, 14)})});
  const Expr sign = optional(choice({text("+"), text("-")}));
  return sequence({optional(text("-")), whole, optional(sequence({text("."), repeat(digit, 1, 15)})),
                   optional(sequence({choice({text("e"), text("E")}), sign, repeat(digit, 1, 2)}))});
}

Dfa multiples(int divisor) {
  // States 0: start, 1: after the sign, 2 + r: the digits so far leave the remainder r.
  Dfa dfa;
  dfa.states.resize(static_cast<size_t>(divisor) + 2);
  dfa.states[0].edges.push_back({'-', '-', 1});
  for (size_t s = 0; s < dfa.states.size(); ++s) {
    const int remainder = s < 2 ? 0 : static_cast<int>(s) - 2;
    dfa.states[s].final = s == 2;
    for (int digit = 0; digit < 10; ++digit) {
      const auto byte = static_cast<uint8_t>('0' + digit);
      dfa.states[s].edges.push_back({byte, byte, static_cast<StateId>(2 + (remainder * 10 + digit) % divisor)});
    }
  }
  return dfa;
}

}  // namespace idefics::grammar
