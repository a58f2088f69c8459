// For the tests of this room: a real tokenizer, and grammars asked about whole texts.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/files.h"
#include "grammar/compiled_grammar.h"
#include "grammar/recognizer.h"
#include "grammar/token_constraint.h"

namespace idefics::grammar {

inline std::shared_ptr<const TokenVocabulary> test_vocabulary() {
  static const auto vocabulary = [] {
    const std::string path = IDEFICS_SOURCE_DIR "/models/tiny-cards/tokenizer.json";
    return std::make_shared<const TokenVocabulary>(
        Tokenizer::parse(read_file(path, Tokenizer::kMaxFileBytes), "tokenizer.json"));
  }();
  return vocabulary;
}

using Kind = StructuredOutput::Kind;

inline std::shared_ptr<const CompiledGrammar> compile(Kind kind, const std::string& text, const Limits& limits = {}) {
  return CompiledGrammar::compile({kind, text, {}}, test_vocabulary(), limits);
}

// Whether a grammar holds a text, byte by byte; `prefix`: whether it holds one that begins with it.
inline bool holds(const CompiledGrammar& grammar, std::string_view text, bool prefix = false) {
  StackTree stacks;
  Recognizer recognizer(grammar.program(), grammar.max_depth());
  Config config, next;
  recognizer.start(stacks, config);
  for (const char c : text) {
    recognizer.step(stacks, config, static_cast<uint8_t>(c), next);
    std::swap(config, next);
    if (config.dead()) return false;
  }
  return prefix || config.complete;
}

// What compile() says against it; empty when nothing.
inline std::string refusal(Kind kind, const std::string& text, const Limits& limits = {}) {
  try {
    compile(kind, text, limits);
  } catch (const Error& e) {
    return e.code() == ErrorCode::kSchemaInvalid ? e.what() : "another code: " + std::string(e.what());
  }
  return {};
}

}  // namespace idefics::grammar
