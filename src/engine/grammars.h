// Compiled grammars of requests for structured output, kept for requests that ask for the same.
#pragma once

#include <list>
#include <memory>
#include <mutex>

#include "grammar/compiled_grammar.h"
#include "scheduling/key.h"
#include "text/tokenizer.h"

namespace idefics {

// The tokens of the model are made into a tree when the first grammar is wanted.
// Threads: any; one that compiles keeps no other from what is known.
class Grammars {
 public:
  explicit Grammars(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}

  // Errors: kSchemaInvalid.
  std::shared_ptr<const grammar::CompiledGrammar> find(const StructuredOutput& output);

 private:
  static constexpr size_t kMost = 16;

  using Compiled = std::shared_ptr<const grammar::CompiledGrammar>;
  Compiled find_known(const Key& key);
  std::shared_ptr<const grammar::TokenVocabulary> vocabulary();

  const Tokenizer& tokenizer_;
  std::mutex vocabulary_mutex_;
  std::shared_ptr<const grammar::TokenVocabulary> vocabulary_;
  std::mutex mutex_;
  std::list<std::pair<Key, Compiled>> recent_;  // last used first
};

}  // namespace idefics
