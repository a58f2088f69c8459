// How long a text may go on in the same way, whichever characters come.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "grammar/program.h"
#include "grammar/utf8_position.h"

namespace idefics::grammar {

// From a state, up to `length` characters may follow, each of them any of `ascii` and, with `others`, any beyond ASCII.
// Every beginning of such a text is a beginning of a text of the grammar; the last character may be cut off.
struct Run {
  AsciiSet ascii;
  StateId to = Program::kNone;  // after one character
  uint8_t width = 0;            // how many are in `ascii`
  uint16_t length = 0;          // at most Runs::kLongest
  bool others = false;
  bool by_call = false;   // the others are taken by a call of a rule, for which there must be room
  bool is_final = false;  // a rule may end at one of the states after the first
  // There is no other reading of these characters, and no further one of them can follow after `length`. Known only of
  // those that are shorter than Runs::kLongest.
  bool stops = false;
};

// Finds runs, each once. The content of a string is one: within a string without a limit it has no end, in one of 500
// characters it is as long as there are characters left, as far as that is looked at. Threads: one owner.
class Runs {
 public:
  static constexpr uint16_t kLongest = 32;  // few parts of the tree of tokens are deeper

  // REQUIRES: `program` lives as long as this.
  explicit Runs(const Program& program);

  // Valid until the next call.
  const Run& from(StateId state);

 private:
  struct Step {
    uint32_t byte_class;
    Utf8Position next;
  };

  Run& link(StateId state);
  Run find_link(StateId state) const;
  bool others_lead_to(StateId state, StateId to, Utf8Position position) const;
  bool calls_take_others(StateId state, StateId to) const;
  bool is_only_reading(StateId state, const Run& run) const;
  bool refuses(StateId state, const Run& run) const;
  bool row_refuses(StateId state, const AsciiSet& ascii, bool others) const;

  const Program& program_;
  std::vector<AsciiSet> ascii_;                                // by class
  std::array<std::vector<Step>, Utf8Position::kCount> steps_;  // by position: which classes lead where
  std::vector<uint32_t> index_;                                // by state: its place in runs_, from 1
  std::vector<Run> runs_;                                      // a length of 0: not yet known
  std::vector<StateId> chain_;
};

}  // namespace idefics::grammar
