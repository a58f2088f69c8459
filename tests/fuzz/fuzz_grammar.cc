// The first byte chooses the kind: a schema, an expression, a grammar, choices. What compiles is walked with tokens
// that the other bytes choose; what the masks say and what accept() says must agree.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "base/files.h"
#include "grammar/token_constraint.h"

namespace {

using idefics::StructuredOutput;
using namespace idefics::grammar;  // NOLINT: a fuzz target, and every name below is of this room

std::shared_ptr<const TokenVocabulary> vocabulary() {
  static const auto loaded = [] {
    const std::string path = std::string(IDEFICS_GOLDENS) + "/tokenizer/flags.tokenizer.json";
    return std::make_shared<const TokenVocabulary>(
        idefics::Tokenizer::parse(idefics::read_file(path, idefics::Tokenizer::kMaxFileBytes), path));
  }();
  return loaded;
}

void walk(const StructuredOutput& output, std::string_view choices) {
  Limits limits;
  limits.states = 20'000;
  const auto grammar = CompiledGrammar::compile(output, vocabulary(), limits);
  TokenConstraint constraint(grammar, {0});
  std::vector<uint32_t> bits(vocabulary()->mask_words());
  for (size_t i = 0; i < std::min<size_t>(choices.size(), 24) && !constraint.must_stop(); ++i) {
    for (const int32_t id : constraint.forced_tokens()) IDEFICS_CHECK(constraint.accept(id));
    if (constraint.must_stop()) break;
    constraint.mask(bits);
    const auto start = static_cast<uint8_t>(choices[i]);
    bool moved = false;
    for (int32_t k = 0; k < vocabulary()->size() && !moved; ++k) {
      const int32_t id = (k + start * 37) % vocabulary()->size();
      const bool allowed = (bits[static_cast<size_t>(id) / 32] >> (id % 32) & 1) != 0;
      moved = constraint.accept(id);
      IDEFICS_CHECK(moved == allowed);
    }
    IDEFICS_CHECK(moved);
    if (i % 5 == 4) constraint.rollback(2);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0 || size > 4096) return 0;
  const std::string rest(reinterpret_cast<const char*>(data) + 1, size - 1);
  StructuredOutput output;
  switch (data[0] % 4) {
    case 0: output = {StructuredOutput::Kind::kJsonSchema, rest, {}}; break;
    case 1: output = {StructuredOutput::Kind::kRegex, rest, {}}; break;
    case 2: output = {StructuredOutput::Kind::kGrammar, rest, {}}; break;
    default: output = {StructuredOutput::Kind::kChoice, "", {rest.substr(0, rest.size() / 2), rest}}; break;
  }
  try {
    walk(output, rest);
  } catch (const idefics::Error&) {
  }
  return 0;
}
