// Deterministic automata over bytes and calls of rules, and how expressions become them.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "grammar/expression.h"
#include "grammar/limits.h"

namespace idefics::grammar {

using StateId = uint32_t;

// For every byte at most one edge leaves a state, for every rule at most one call. State 0 is the start. No states: the
// empty language.
struct Dfa {
  struct Edge {
    uint8_t low, high;
    StateId to;
  };
  // The called rule's text, then on from `to`.
  struct Call {
    RuleId rule;
    StateId to;
  };
  struct State {
    std::vector<Edge> edges;  // sorted, disjoint
    std::vector<Call> calls;
    bool final = false;
  };
  std::vector<State> states;

  // The state after `byte`, or nothing.
  const Edge* find(StateId state, uint8_t byte) const;
  // Whether it holds a text. REQUIRES: no calls.
  bool accepts(std::string_view text) const;
};

// Errors: kSchemaInvalid when the budget is used up.
Dfa determinize(const Expr& expression, Budget& budget);

// The texts of both, or those of `a` that are not in `b`. REQUIRES: no calls in either.
Dfa intersection(const Dfa& a, const Dfa& b, Budget& budget);
Dfa difference(const Dfa& a, const Dfa& b, Budget& budget);

}  // namespace idefics::grammar
