// What an answer must look like: the request for structured output.
#pragma once

#include <string>
#include <vector>

namespace idefics {

// The whole answer, from its first byte to its last, is one of the texts described here. docs/structured_output.md
// lists what is supported of each kind; anything else is refused with Error{kSchemaInvalid}, never ignored.
struct StructuredOutput {
  enum class Kind {
    kJsonObject,  // any JSON object
    kJsonSchema,  // text: a JSON schema
    kRegex,       // text: a regular expression for the whole answer
    kChoice,      // choices: one of these texts
    kGrammar,     // text: a grammar in GBNF, with the start rule "root"
  };
  Kind kind = Kind::kJsonObject;
  std::string text = {};
  std::vector<std::string> choices = {};
};

}  // namespace idefics
