#include "engine/grammars.h"

#include <algorithm>

#include "base/sha256.h"

namespace idefics {

namespace {

Key key_of(const StructuredOutput& output) {
  Sha256 sha;
  const auto add = [&](const std::string& text) { sha.add_value(text.size()).add(std::as_bytes(std::span(text))); };
  sha.add_value(output.kind);
  add(output.text);
  for (const std::string& choice : output.choices) add(choice);
  return sha.digest();
}

}  // namespace

std::shared_ptr<const grammar::CompiledGrammar> Grammars::find(const StructuredOutput& output) {
  const Key key = key_of(output);
  if (Compiled known = find_known(key)) return known;
  Compiled compiled = grammar::CompiledGrammar::compile(output, vocabulary());
  if (Compiled known = find_known(key)) return known;  // somebody else compiled it meanwhile
  const std::lock_guard lock(mutex_);
  recent_.emplace_front(key, compiled);
  if (recent_.size() > kMost) recent_.pop_back();
  return compiled;
}

Grammars::Compiled Grammars::find_known(const Key& key) {
  const std::lock_guard lock(mutex_);
  const auto known = std::ranges::find(recent_, key, [](const auto& entry) { return entry.first; });
  if (known == recent_.end()) return nullptr;
  recent_.splice(recent_.begin(), recent_, known);
  return recent_.front().second;
}

std::shared_ptr<const grammar::TokenVocabulary> Grammars::vocabulary() {
  const std::lock_guard lock(vocabulary_mutex_);
  if (!vocabulary_) vocabulary_ = std::make_shared<const grammar::TokenVocabulary>(tokenizer_);
  return vocabulary_;
}

}  // namespace idefics
