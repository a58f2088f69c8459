#include "grammar/compiled_grammar.h"

#include <fmt/format.h>

#include "base/check.h"
#include "base/utf8.h"
#include "grammar/gbnf.h"
#include "grammar/json_schema.h"
#include "grammar/regex.h"

namespace idefics::grammar {

namespace {

// Readers of JSON commonly stop at 64 levels or more (base/json.h at 64). A level of JSON is one level of calls.
constexpr uint32_t kMaxJsonDepth = 60;
constexpr uint32_t kMaxGrammarDepth = 256;

size_t text_bytes(const StructuredOutput& output) {
  size_t bytes = output.text.size();
  for (const std::string& c : output.choices) bytes += c.size();
  return bytes;
}

Grammar choices(const StructuredOutput& output) {
  if (output.choices.empty()) fail("choice: is an empty list, wanted one text or more");
  std::vector<Expr> parts;
  for (size_t i = 0; i < output.choices.size(); ++i) {
    if (!is_utf8(output.choices[i])) fail(fmt::format("choice: text {} is not valid UTF-8", i));
    if (output.choices[i].empty()) fail(fmt::format("choice: text {} is empty", i));
    parts.push_back(text(output.choices[i]));
  }
  return {{{"choice", choice(std::move(parts))}}, 0};
}

Grammar read(const StructuredOutput& output, Budget& budget) {
  switch (output.kind) {
    case StructuredOutput::Kind::kJsonObject: return json_object_grammar(budget);
    case StructuredOutput::Kind::kJsonSchema: return json_schema_grammar(output.text, budget);
    case StructuredOutput::Kind::kRegex: return {{{"regex", parse_regex(output.text, "regex", budget)}}, 0};
    case StructuredOutput::Kind::kChoice: return choices(output);
    case StructuredOutput::Kind::kGrammar: return parse_gbnf(output.text, budget);
  }
  fail("structured output: is of an unknown kind");
}

}  // namespace

std::shared_ptr<const CompiledGrammar> CompiledGrammar::compile(const StructuredOutput& output,
                                                                std::shared_ptr<const TokenVocabulary> vocabulary,
                                                                const Limits& limits) {
  IDEFICS_CHECK(vocabulary != nullptr);
  if (text_bytes(output) > limits.text_bytes) {
    fail(fmt::format("structured output: has {} bytes, at most {} are supported", text_bytes(output),
                     limits.text_bytes));
  }
  Budget budget(limits);
  const Grammar grammar = read(output, budget);
  const bool json =
      output.kind == StructuredOutput::Kind::kJsonObject || output.kind == StructuredOutput::Kind::kJsonSchema;
  auto program = std::make_shared<const Program>(link(grammar, budget));
  return std::shared_ptr<const CompiledGrammar>(
      new CompiledGrammar(std::move(program), std::move(vocabulary), json ? kMaxJsonDepth : kMaxGrammarDepth));
}

}  // namespace idefics::grammar
