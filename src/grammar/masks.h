// Which tokens may come next: walks of the tree of tokens, remembered by state.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <unordered_map>
#include <vector>

#include "grammar/recognizer.h"
#include "grammar/runs.h"
#include "grammar/token_vocabulary.h"

namespace idefics::grammar {

// What is true of a state whatever its stack is, but for whether it is empty.
struct StateTokens {
  std::vector<uint32_t> bits;     // the tokens that it takes without leaving the stack; empty when `ids` holds them
  std::vector<int32_t> ids;       // the same when they are few
  std::vector<uint32_t> leaving;  // nodes of the tree, with nodes below them, at which the rule may be left
  uint32_t depth = 0;             // how many calls deep the walk went
};

// The walk of one state is done once and used by all sequences of a grammar. Where a state and those after it go on by
// the same characters, as within a string, whole parts of the tree are taken without a look at their tokens (runs.h),
// so that the first walk of a state is not dear either. Threads: any, one at a time.
class MaskCache {
 public:
  MaskCache(std::shared_ptr<const Program> program, std::shared_ptr<const TokenVocabulary> vocabulary,
            uint32_t max_depth);
  const TokenVocabulary& vocabulary() const { return *vocabulary_; }

  // Sets the bits of the tokens that may follow `config`, whose stacks are in `stacks` (as it was, afterwards). Sets no
  // bit of a stop token for being one. REQUIRES: bits.size() >= mask_words(). Errors: as Recognizer.
  void add(StackTree& stacks, const Config& config, std::span<uint32_t> bits) const;

 private:
  static constexpr size_t kMaxEntries = 2048;  // 6 KB each with 49,000 tokens
  static constexpr size_t kMaxConfigs = 512;   // the same size
  static constexpr size_t kManyLeaving = 128;

  const StateTokens& find(Config::Place place) const;
  StateTokens walk(Config::Place place) const;
  bool has_room(const StackTree& stacks, Config::Place place) const;
  std::vector<Config::Place> without_called(const StackTree& stacks, const Config& config) const;
  bool is_dear(const StackTree& stacks, std::span<const Config::Place> places) const;
  void add_place(StackTree& stacks, Config::Place place, std::span<uint32_t> bits) const;

  std::shared_ptr<const Program> program_;
  std::shared_ptr<const TokenVocabulary> vocabulary_;
  uint32_t max_depth_;
  mutable std::mutex mutex_;  // of all below
  mutable Runs runs_;
  mutable std::unordered_map<uint64_t, StateTokens> entries_;  // by state and whether the stack is empty
  // Masks of whole configurations, by the states of all their stacks, where the walks after leaving a rule are dear: a
  // rule that may end after every character, say.
  mutable std::map<std::vector<StateId>, std::vector<uint32_t>> configs_;
};

}  // namespace idefics::grammar
