// Keeps one sequence inside of its grammar, token by token.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "grammar/compiled_grammar.h"

namespace idefics::grammar {

// One per sequence. A copy goes on independently (n > 1, drafts).
//
//   TokenConstraint constraint(grammar, stop_ids);
//   while (!constraint.must_stop()) {
//     for (int32_t id : constraint.forced_tokens()) { constraint.accept(id); ...append id, no choice to make... }
//     constraint.mask(bits);                       // then logits whose bit is 0 become -infinity
//     const int32_t id = ...;
//     constraint.accept(id);
//   }
//
// Invariants
//   1. Whatever tokens were accepted, their bytes are the beginning of a text of the grammar.
//   2. accept(id) is true exactly for the ids whose bit mask() sets.
//   3. A stop id is allowed exactly when is_complete(), and nothing after it.
// Threads: one owner.
class TokenConstraint {
 public:
  // `stop_ids`: the ids that end the answer; they are never part of its text.
  TokenConstraint(std::shared_ptr<const CompiledGrammar> grammar, std::vector<int32_t> stop_ids);

  // Sets bit id % 32 of word id / 32 for every id that may come next, and clears all others. `bits` may be longer than
  // the vocabulary; ids beyond it are never allowed. REQUIRES: bits.size() >= vocabulary().mask_words() and room for
  // the stop ids. Errors: kSchemaInvalid when no token is left (a byte that the tokenizer lacks, nesting at its limit
  // and no other way on) or when the text has too many readings.
  void mask(std::span<uint32_t> bits);
  // Takes a token; false, and nothing changed, when it is not allowed. Errors: as mask().
  bool accept(int32_t id);
  // Takes back the last `count` accepted tokens. REQUIRES: count <= num_accepted().
  void rollback(size_t count);
  size_t num_accepted() const { return history_.size() - 1; }

  // The text may end here: a stop id is allowed, or was accepted.
  bool is_complete() const { return here().complete; }
  // Only the end can come: nothing of the text, only a stop id, or that one was accepted. The answer is finished
  // without another step.
  bool must_stop() const { return here().stopped || (here().complete && here().num_places == 0); }

  // The bytes that must come next whatever the model says: as long as there is one way on, and the text cannot end. At
  // most kMaxForced bytes.
  std::string forced_bytes();
  // Tokens for the beginning of forced_bytes(), as the tokenizer writes these bytes; often none. Not for bytes at the
  // end that a token could also reach across: the choice between that token and a shorter one is the model's. They are
  // not accepted yet.
  std::vector<int32_t> forced_tokens();

  static constexpr size_t kMaxForced = 4096;

 private:
  // After a token; the places lie in places_.
  struct Moment {
    size_t first_place, num_places;
    size_t stacks;  // the size of stacks_
    bool complete, stopped;
  };
  const Moment& here() const { return history_.back(); }
  bool is_stop(int32_t id) const;
  Config config() const;
  void remember(const Config& config, bool stopped);
  // Moves `config` over bytes; false when they do not fit.
  bool advance(std::string_view bytes, Config& config);
  std::string forced_from(Config config, bool& ends);

  std::shared_ptr<const CompiledGrammar> grammar_;
  std::vector<int32_t> stop_ids_;
  StackTree stacks_;
  Recognizer recognizer_;
  std::vector<Config::Place> places_;
  std::vector<Moment> history_;
};

}  // namespace idefics::grammar
