// A grammar made ready to run: all rules' automata in one table.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "grammar/automaton.h"

namespace idefics::grammar {

struct Rule {
  std::string name;  // for errors
  Expr body;
};

struct Grammar {
  std::vector<Rule> rules;
  RuleId start = 0;
};

// States that cannot lead to a complete text are not in it: whoever stands in a state of a program can finish.
struct Program {
  static constexpr StateId kNone = ~StateId{0};
  struct Call {
    StateId start;  // of the called rule
    StateId to;     // after it
    bool tail;      // `to` has nothing more to do: it need not be remembered
  };
  // What a state has besides its bytes.
  enum Flag : uint8_t {
    kFinal = 1,  // its rule may end here
    kCalls = 2,
    kBytes = 4,
  };

  std::array<uint8_t, 256> class_of{};  // bytes that no state tells apart share a class
  uint32_t num_classes = 0;
  std::vector<StateId> next;  // [states, classes]
  std::vector<uint8_t> flags;
  // By state: it has bytes, and what it calls begins with bytes, is never empty and has more to come after it, so that
  // following its calls adds one place for each and no more. So are the characters of strings, where the rare ones are
  // a rule of their own.
  std::vector<uint8_t> plain;
  std::vector<uint32_t> first_call;  // [states + 1]: the calls of state s are calls[first_call[s] .. first_call[s + 1])
  std::vector<Call> calls;
  StateId start = 0;

  StateId step(StateId state, uint8_t byte) const { return next[size_t{state} * num_classes + class_of[byte]]; }
  size_t num_states() const { return flags.size(); }
};

// Errors: kSchemaInvalid when no text satisfies the grammar, when a rule calls itself before any byte, or when the
// budget is used up.
Program link(const Grammar& grammar, Budget& budget);

}  // namespace idefics::grammar
