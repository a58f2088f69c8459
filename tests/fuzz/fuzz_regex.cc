// A regular expression: compiles, or is refused; what compiles is walked.
#include <cstddef>
#include <cstdint>

#include "fuzz_grammar.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return idefics::grammar::fuzz_source(idefics::StructuredOutput::Kind::kRegex,
                                       {reinterpret_cast<const char*>(data), size});
}
