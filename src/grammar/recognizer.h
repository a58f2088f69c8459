// Runs a program over bytes: a set of stacks of states.
#pragma once

#include <cstdint>
#include <vector>

#include "grammar/program.h"

namespace idefics::grammar {

using StackId = uint32_t;

// Stacks of return states, as a tree that grows and shrinks at its end. Equal stacks have equal ids.
class StackTree {
 public:
  static constexpr StackId kEmpty = 0;    // the end of the text may follow
  static constexpr StackId kUnknown = 1;  // what follows is not known here (masks.h)
  static constexpr size_t kMaxNodes = size_t{1} << 20;

  StackTree();
  StateId top(StackId stack) const { return nodes_[stack].top; }
  StackId rest(StackId stack) const { return nodes_[stack].rest; }
  uint32_t depth(StackId stack) const { return nodes_[stack].depth; }
  // Errors: kSchemaInvalid when kMaxNodes are in use.
  StackId push(StateId state, StackId rest);
  // Stacks from number `size` on are gone.
  size_t size() const { return nodes_.size(); }
  void truncate(size_t size);

 private:
  struct Node {
    StateId top;
    StackId rest;
    uint32_t depth;
    StackId older;  // the next node of the same bucket
  };
  static constexpr size_t kBuckets = 256;
  static size_t bucket(StateId state, StackId rest) { return (state * 31u + rest * 17u) % kBuckets; }

  std::vector<Node> nodes_;
  std::vector<StackId> newest_;  // by bucket
};

// Where a text may stand: one of `places`, each a state with bytes to come; `complete` when it may end here; `unknown`
// when it may have left the stack that was given (kUnknown). Dead when none of them is so.
struct Config {
  struct Place {
    StateId state;
    StackId stack;
    bool operator==(const Place&) const = default;
  };
  std::vector<Place> places;
  bool complete = false;
  bool unknown = false;
  bool dead() const { return places.empty() && !complete && !unknown; }
};

// Threads: one owner. Keeps scratch.
class Recognizer {
 public:
  static constexpr size_t kMaxPlaces = 512;

  // Stacks deeper than `max_depth` are not entered.
  Recognizer(const Program& program, uint32_t max_depth) : program_(&program), max_depth_(max_depth) {}

  // All of these replace `out`. Errors: kSchemaInvalid when a text has more than kMaxPlaces readings at once.
  void start(StackTree& stacks, Config& out) { enter(stacks, {program_->start, StackTree::kEmpty}, out); }
  // Everything that `place` stands for before the next byte.
  void enter(StackTree& stacks, Config::Place place, Config& out);
  // After `byte`. `out` is not `from`.
  void step(StackTree& stacks, const Config& from, uint8_t byte, Config& out);
  // Whether a call was not entered since the last reset because it was too deep, and how deep calls went.
  uint32_t deepest() const { return deepest_; }
  void reset_deepest() { deepest_ = 0; }

 private:
  void add(Config::Place place);
  void close(StackTree& stacks, Config& out);

  const Program* program_;
  uint32_t max_depth_;
  uint32_t deepest_ = 0;
  std::vector<Config::Place> seen_;  // of the closure in work
};

}  // namespace idefics::grammar
