// Which tokens may come next: walks of the tree of tokens, remembered by state.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <unordered_map>
#include <vector>

#include "grammar/recognizer.h"
#include "grammar/token_vocabulary.h"

namespace idefics::grammar {

// What is true of a state whatever its stack is.
struct StateTokens {
  std::vector<uint32_t> bits;     // the tokens that it takes without leaving the stack; empty when `ids` holds them
  std::vector<int32_t> ids;       // the same when they are few
  std::vector<uint32_t> leaving;  // nodes of the tree, with nodes below them, at which the rule may be left
  uint32_t depth = 0;             // how many calls deep the walk went
};

// The walk of one state is done once and used by all sequences of a grammar. Where a state and those after it go on by
// the same bytes, as within a string, whole parts of the tree are taken without a look at their tokens (Runs), so that
// the first walk of a state is not dear either. Threads: any, there is a lock inside.
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

  std::shared_ptr<const StateTokens> find(StateId state) const;
  StateTokens walk_state(StateId state) const;
  void add_place(StackTree& stacks, Config::Place place, std::span<uint32_t> bits) const;

  std::shared_ptr<const Program> program_;
  std::shared_ptr<const TokenVocabulary> vocabulary_;
  uint32_t max_depth_;
  mutable std::mutex mutex_;
  mutable std::unordered_map<StateId, std::shared_ptr<const StateTokens>> entries_;
};

}  // namespace idefics::grammar
