// Schemas and texts of which other implementations have said what they are (tools/make_schema_verdicts.py).
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <set>
#include <sstream>

#include "base/json.h"
#include "grammar/test_grammars.h"

namespace idefics::grammar {
namespace {

// Valid, says jsonschema, but never written here; docs/structured_output.md says why.
const std::set<std::string> kNotWritten = {
    "1e2",          // a whole number with an exponent
    "-0",           // zero has no sign
    "\"ab\\n\"",    // $ is the very end of the text in ECMAScript, not in Python
    "\"\\ud800\"",  // half a surrogate pair: no text in UTF-8
};

TEST(SchemaVerdicts, what_is_held_is_valid_and_what_is_valid_is_held) {
  const std::string path = IDEFICS_SOURCE_DIR "/tests/golden/data/grammar/schema_verdicts.jsonl";
  std::istringstream lines(read_file(path, size_t{1} << 20));
  int texts = 0;
  std::set<std::string> not_written;
  for (std::string line; std::getline(lines, line);) {
    const json::value row = parse_json(line, "schema_verdicts");
    const std::string schema = json::serialize(row.at("schema"));
    SCOPED_TRACE(schema);
    const auto grammar = compile(Kind::kJsonSchema, schema);
    for (const json::value& entry : row.at("texts").as_array()) {
      const std::string text(entry.as_array().at(0).as_string());
      const bool valid = entry.as_array().at(1).as_bool(), held = holds(*grammar, text);
      ++texts;
      if (valid && !held && kNotWritten.contains(text)) {
        not_written.insert(text);
        continue;
      }
      EXPECT_EQ(held, valid) << text << (entry.as_array().at(2).as_bool() ? " (llguidance writes it)" : "");
    }
  }
  EXPECT_GT(texts, 100);
  EXPECT_EQ(not_written, kNotWritten);  // no more and no fewer than the documentation says
}

}  // namespace
}  // namespace idefics::grammar
