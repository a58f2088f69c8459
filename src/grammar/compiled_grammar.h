// A request for structured output, checked and made ready to constrain tokens.
#pragma once

#include <memory>

#include "grammar/limits.h"
#include "grammar/masks.h"
#include "grammar/program.h"
#include "grammar/token_vocabulary.h"
#include "idefics/structured_output.h"

namespace idefics::grammar {

// Immutable and shared by the sequences of a request, and by requests that ask for the same.
// Threads: any.
class CompiledGrammar {
 public:
  // Errors: kSchemaInvalid, naming the place in the schema ("json_schema: #/properties/a: ..."), or the offset in an
  // expression or grammar.
  static std::shared_ptr<const CompiledGrammar> compile(const StructuredOutput& output,
                                                        std::shared_ptr<const TokenVocabulary> vocabulary,
                                                        const Limits& limits = {});

  const TokenVocabulary& vocabulary() const { return masks_.vocabulary(); }
  const Program& program() const { return *program_; }
  const MaskCache& masks() const { return masks_; }
  // How deep calls may nest. What is nested deeper is not allowed by any mask.
  uint32_t max_depth() const { return max_depth_; }

 private:
  CompiledGrammar(std::shared_ptr<const Program> program, std::shared_ptr<const TokenVocabulary> vocabulary,
                  uint32_t max_depth)
      : program_(program), max_depth_(max_depth), masks_(std::move(program), std::move(vocabulary), max_depth) {}

  std::shared_ptr<const Program> program_;
  uint32_t max_depth_;
  MaskCache masks_;
};

}  // namespace idefics::grammar
