// The first byte chooses the kind: a schema, an expression, a grammar, choices. What compiles is walked with tokens
// that the other bytes choose.
#include "fuzz_grammar.h"

#include <cstddef>
#include <cstdint>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using idefics::StructuredOutput;
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
    idefics::grammar::fuzz_walk(output, rest);
  } catch (const idefics::Error&) {
  }
  return 0;
}
