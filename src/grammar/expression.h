// Languages over bytes, as expressions: the one form that schemas, regular expressions and grammars are turned into.
#pragma once

#include <bitset>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace idefics::grammar {

struct Dfa;
struct Expression;
using Expr = std::shared_ptr<const Expression>;
using RuleId = uint32_t;

// From node `from` to node `to` of a graph, by a text of `label`.
struct GraphEdge {
  uint32_t from, to;
  Expr label;
};

struct Expression {
  enum class Kind { kNothing, kText, kBytes, kSequence, kChoice, kRepeat, kCall, kDfa, kGraph };
  static constexpr int kUnbounded = -1;

  Kind kind = Kind::kNothing;
  std::string text;                // kText: exactly these bytes; may be empty
  std::bitset<256> bytes;          // kBytes: one of these
  std::vector<Expr> parts;         // kSequence, kChoice; kRepeat: one part
  int min = 0, max = kUnbounded;   // kRepeat
  RuleId rule = 0;                 // kCall
  std::shared_ptr<const Dfa> dfa;  // kDfa
  std::vector<GraphEdge> edges;    // kGraph: from node 0 to node 1
};

Expr nothing();  // the empty language
Expr text(std::string_view bytes);
Expr byte_range(uint8_t low, uint8_t high);
Expr bytes(const std::bitset<256>& set);
Expr sequence(std::vector<Expr> parts);
Expr choice(std::vector<Expr> parts);
Expr repeat(Expr part, int min, int max);  // nothing() when max is below min
Expr optional(Expr part);
Expr call(RuleId rule);
Expr automaton(Dfa dfa);
// The texts of all ways from node 0 to node 1.
Expr graph(std::vector<GraphEdge> edges);

// A set of code points: sorted, disjoint ranges, ends included; surrogates are never in it.
class CodePoints {
 public:
  CodePoints() = default;
  CodePoints(char32_t low, char32_t high) { add(low, high); }
  static CodePoints all();
  void add(char32_t low, char32_t high);
  void add(const CodePoints& other);
  CodePoints complement() const;
  CodePoints intersect(const CodePoints& other) const { return unite(complement(), other.complement()).complement(); }
  bool contains(char32_t value) const;
  bool empty() const { return ranges_.empty(); }
  const std::vector<std::pair<char32_t, char32_t>>& ranges() const { return ranges_; }

 private:
  static CodePoints unite(CodePoints a, const CodePoints& b);
  std::vector<std::pair<char32_t, char32_t>> ranges_;
};

// The UTF-8 texts of one code point of the set.
Expr utf8(const CodePoints& set);

// The value of a hexadecimal digit; -1: it is none.
constexpr int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  const char lower = static_cast<char>(c | 0x20);
  return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

}  // namespace idefics::grammar
