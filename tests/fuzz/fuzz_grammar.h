// For the fuzz targets of structured output: walks what compiles.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "base/files.h"
#include "grammar/token_constraint.h"

namespace idefics::grammar {

inline std::shared_ptr<const TokenVocabulary> fuzz_vocabulary() {
  static const auto loaded = [] {
    const std::string path = std::string(IDEFICS_GOLDENS) + "/tokenizer/flags.tokenizer.json";
    return std::make_shared<const TokenVocabulary>(Tokenizer::parse(read_file(path, Tokenizer::kMaxFileBytes), path));
  }();
  return loaded;
}

// Compiles, and takes tokens that `choices` choose; what the masks say and what accept() says must agree. Error is for
// the caller.
inline void fuzz_walk(const StructuredOutput& output, std::string_view choices) {
  Limits limits;
  limits.states = 20'000;
  const auto vocabulary = fuzz_vocabulary();
  const auto grammar = CompiledGrammar::compile(output, vocabulary, limits);
  TokenConstraint constraint(grammar, {0});
  std::vector<uint32_t> bits(vocabulary->mask_words());
  for (size_t i = 0; i < std::min<size_t>(choices.size(), 24) && !constraint.must_stop(); ++i) {
    for (const int32_t id : constraint.forced_tokens()) IDEFICS_CHECK(constraint.accept(id));
    if (constraint.must_stop()) break;
    constraint.mask(bits);
    const auto start = static_cast<uint8_t>(choices[i]);
    bool moved = false;
    for (int32_t k = 0; k < vocabulary->size() && !moved; ++k) {
      const int32_t id = (k + start * 37) % vocabulary->size();
      const bool allowed = (bits[static_cast<size_t>(id) / 32] >> (id % 32) & 1) != 0;
      moved = constraint.accept(id);
      IDEFICS_CHECK(moved == allowed);
    }
    IDEFICS_CHECK(moved);
    if (i % 5 == 4) constraint.rollback(2);
  }
}

inline int fuzz_source(StructuredOutput::Kind kind, std::string_view source) {
  if (source.size() > 4096) return 0;
  // The walk is led by the end of the source, which differs where beginnings are alike.
  const std::string choices(source.rbegin(), source.rend());
  try {
    fuzz_walk({kind, std::string(source), {}}, choices);
  } catch (const Error&) {
  }
  return 0;
}

}  // namespace idefics::grammar
