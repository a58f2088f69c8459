#include "grammar/expression.h"

#include <algorithm>

#include "base/utf8.h"
#include "grammar/automaton.h"

namespace idefics::grammar {

namespace {

constexpr char32_t kMaxCodePoint = 0x10ffff;
constexpr char32_t kFirstSurrogate = 0xd800, kLastSurrogate = 0xdfff;

Expr make(Expression expression) { return std::make_shared<const Expression>(std::move(expression)); }

// The texts between two UTF-8 texts of the same length, `low` and `high`, from byte `at` on. The bytes after a byte
// strictly between the two are free.
Expr between(const std::string& low, const std::string& high, size_t at) {
  if (at == low.size()) return text("");
  const auto first = static_cast<uint8_t>(low[at]), last = static_cast<uint8_t>(high[at]);
  if (first == last) return sequence({byte_range(first, first), between(low, high, at + 1)});
  const std::string lowest(low.size(), '\x80'), highest(low.size(), '\xbf');
  const auto rest_is = [at](const std::string& a, const std::string& b) {
    return a.substr(at + 1) == b.substr(at + 1);
  };
  std::vector<Expr> parts;
  int begin = first, end = last;
  if (!rest_is(low, lowest)) {
    parts.push_back(sequence({byte_range(first, first), between(low, highest, at + 1)}));
    ++begin;
  }
  if (!rest_is(high, highest)) {
    parts.push_back(sequence({byte_range(last, last), between(lowest, high, at + 1)}));
    --end;
  }
  if (begin <= end) {
    std::vector<Expr> free = {byte_range(static_cast<uint8_t>(begin), static_cast<uint8_t>(end))};
    for (size_t i = at + 1; i < low.size(); ++i) free.push_back(byte_range(0x80, 0xbf));
    parts.push_back(sequence(std::move(free)));
  }
  return choice(std::move(parts));
}

std::string encode(char32_t value) {
  std::string out;
  append_utf8(out, value);
  return out;
}

}  // namespace

Expr nothing() { return make({}); }

Expr text(std::string_view value) {
  Expression e;
  e.kind = Expression::Kind::kText;
  e.text = value;
  return make(std::move(e));
}

Expr bytes(const std::bitset<256>& set) {
  Expression e;
  e.kind = Expression::Kind::kBytes;
  e.bytes = set;
  return make(std::move(e));
}

Expr byte_range(uint8_t low, uint8_t high) {
  std::bitset<256> set;
  for (int b = low; b <= high; ++b) set.set(static_cast<size_t>(b));
  return bytes(set);
}

Expr sequence(std::vector<Expr> parts) {
  if (parts.size() == 1) return parts[0];
  Expression e;
  e.kind = Expression::Kind::kSequence;
  e.parts = std::move(parts);
  return make(std::move(e));
}

Expr choice(std::vector<Expr> parts) {
  if (parts.empty()) return nothing();
  if (parts.size() == 1) return parts[0];
  Expression e;
  e.kind = Expression::Kind::kChoice;
  e.parts = std::move(parts);
  return make(std::move(e));
}

Expr repeat(Expr part, int min, int max) {
  if (max != Expression::kUnbounded && max < min) return nothing();
  Expression e;
  e.kind = Expression::Kind::kRepeat;
  e.parts = {std::move(part)};
  e.min = min;
  e.max = max;
  return make(std::move(e));
}

Expr optional(Expr part) { return repeat(std::move(part), 0, 1); }

Expr call(RuleId rule) {
  Expression e;
  e.kind = Expression::Kind::kCall;
  e.rule = rule;
  return make(std::move(e));
}

Expr automaton(Dfa dfa) {
  Expression e;
  e.kind = Expression::Kind::kDfa;
  e.dfa = std::make_shared<const Dfa>(std::move(dfa));
  return make(std::move(e));
}

Expr graph(std::vector<GraphEdge> edges) {
  Expression e;
  e.kind = Expression::Kind::kGraph;
  e.edges = std::move(edges);
  return make(std::move(e));
}

CodePoints CodePoints::all() { return CodePoints(0, kMaxCodePoint); }

void CodePoints::add(char32_t low, char32_t high) {
  high = std::min(high, kMaxCodePoint);
  if (low > high) return;
  if (low <= kLastSurrogate && high >= kFirstSurrogate) {
    if (low < kFirstSurrogate) add(low, kFirstSurrogate - 1);
    if (high > kLastSurrogate) add(kLastSurrogate + 1, high);
    return;
  }
  std::vector<std::pair<char32_t, char32_t>> merged;
  for (const auto& range : ranges_) {
    if (range.second + 1 < low || range.first > high + 1) {
      merged.push_back(range);
    } else {
      low = std::min(low, range.first);
      high = std::max(high, range.second);
    }
  }
  merged.emplace_back(low, high);
  std::sort(merged.begin(), merged.end());
  ranges_ = std::move(merged);
}

void CodePoints::add(const CodePoints& other) {
  for (const auto& [low, high] : other.ranges_) add(low, high);
}

CodePoints CodePoints::unite(CodePoints a, const CodePoints& b) {
  a.add(b);
  return a;
}

CodePoints CodePoints::complement() const {
  CodePoints result;
  char32_t next = 0;
  for (const auto& [low, high] : ranges_) {
    if (next < low) result.add(next, low - 1);
    next = high + 1;
  }
  if (next <= kMaxCodePoint) result.add(next, kMaxCodePoint);
  return result;
}

bool CodePoints::contains(char32_t value) const {
  return std::any_of(ranges_.begin(), ranges_.end(),
                     [value](const auto& range) { return range.first <= value && value <= range.second; });
}

Expr utf8(const CodePoints& set) {
  constexpr std::pair<char32_t, char32_t> kLengths[] = {
      {0, 0x7f}, {0x80, 0x7ff}, {0x800, 0xffff}, {0x10000, kMaxCodePoint}};
  std::bitset<256> ascii;
  std::vector<Expr> parts;
  for (const auto& [low, high] : set.ranges()) {
    for (const auto& [first, last] : kLengths) {
      const char32_t begin = std::max(low, first), end = std::min(high, last);
      if (begin > end) continue;
      if (first == 0) {
        for (char32_t c = begin; c <= end; ++c) ascii.set(c);
      } else {
        parts.push_back(between(encode(begin), encode(end), 0));
      }
    }
  }
  if (ascii.any()) parts.push_back(bytes(ascii));
  return choice(std::move(parts));
}

}  // namespace idefics::grammar
