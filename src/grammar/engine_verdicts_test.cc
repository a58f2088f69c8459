// Texts of which other engines have said, byte by byte, how far they take them (tools/make_grammar_verdicts.py), and a
// list of where they are not followed, and why.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <map>
#include <set>
#include <sstream>

#include "base/json.h"
#include "grammar/test_grammars.h"

namespace idefics::grammar {
namespace {

// docs/structured_output.md says each of them.
const std::set<std::string> kReasons = {
    "white space is bounded",
    "a space may stand before the whole",
    "numbers are written in one way",
    "half a surrogate pair is never written",
    "without type the other keywords tell the kind",
    "properties without additionalProperties are all",
    "properties are written in order",
    "schemas without an end have no text",
    "$ is the very end of a text",
    "the others know less of the keyword",
};

std::vector<json::value> lines_of(const char* name) {
  std::istringstream text(
      read_file(IDEFICS_SOURCE_DIR "/tests/golden/data/grammar/" + std::string(name), size_t{4} << 20));
  std::vector<json::value> lines;
  for (std::string line; std::getline(text, line);) lines.push_back(parse_json(line, name));
  return lines;
}

struct Taken {
  size_t bytes = 0;
  bool complete = false;
};

Taken take(const CompiledGrammar& grammar, std::string_view text) {
  StackTree stacks;
  Recognizer recognizer(grammar.program(), grammar.max_depth());
  Config config, next;
  recognizer.start(stacks, config);
  for (size_t i = 0; i < text.size(); ++i) {
    recognizer.step(stacks, config, static_cast<uint8_t>(text[i]), next);
    if (next.dead()) return {i, false};
    std::swap(config, next);
  }
  return {text.size(), config.complete};
}

// What the file of differences says: by row the words of a refusal, and by row and text a reason.
struct Listed {
  std::map<size_t, std::string> refused;
  std::map<std::pair<size_t, size_t>, std::string> reasons;
};

Listed read_differences() {
  Listed listed;
  for (const json::value& line : lines_of("engine_differences.jsonl")) {
    const auto row = line.at("row").to_number<size_t>();
    if (const json::value* words = line.as_object().if_contains("refused")) {
      listed.refused[row] = std::string(words->as_string());
      continue;
    }
    for (const json::value& text : line.at("texts").as_array()) {
      listed.reasons[{row, text.to_number<size_t>()}] = std::string(line.at("why").as_string());
    }
  }
  return listed;
}

TEST(EngineVerdicts, are_followed_byte_by_byte_or_the_reason_is_listed) {
  const auto rows = lines_of("engine_verdicts.jsonl");
  const Listed listed = read_differences();
  std::set<std::pair<size_t, size_t>> differences;
  std::map<std::string, int> same;
  int texts = 0;
  for (size_t i = 0; i < rows.size(); ++i) {
    const bool regex = rows[i].at("kind").as_string() == "regex";
    const std::string source =
        regex ? std::string(rows[i].at("source").as_string()) : json::serialize(rows[i].at("source"));
    SCOPED_TRACE(fmt::format("row {}: {}", i, source));
    const std::string said = refusal(regex ? Kind::kRegex : Kind::kJsonSchema, source);
    const auto refused = listed.refused.find(i);
    if (refused != listed.refused.end()) {
      EXPECT_NE(said.find(refused->second), std::string::npos) << said;
      continue;
    }
    ASSERT_EQ(said, "");
    const auto grammar = compile(regex ? Kind::kRegex : Kind::kJsonSchema, source);
    const json::array& list = rows[i].at("texts").as_array();
    for (size_t k = 0; k < list.size(); ++k) {
      const json::array& entry = list[k].as_array();
      const bool valid = entry[1].as_bool();
      const Taken taken = take(*grammar, entry[0].as_string());
      ++texts;
      EXPECT_TRUE(valid || !taken.complete) << entry[0];  // no reason excuses this
      int others = 0, followed = 0;
      for (const size_t engine : {2, 3}) {
        if (entry[engine].is_null()) continue;
        const bool equal = entry[engine].at(0).to_number<size_t>() == taken.bytes;
        ++others;
        followed += equal;
        same[engine == 2 ? "llguidance" : "xgrammar"] += equal && entry[engine].at(1).as_bool() == taken.complete;
      }
      const bool differs = taken.complete != valid || (others > 0 && followed == 0);
      if (differs) differences.insert({i, k});
      EXPECT_EQ(differs, listed.reasons.contains({i, k}))
          << "text " << k << ": " << entry << " here: " << taken.bytes << " bytes, complete: " << taken.complete;
    }
  }
  for (const auto& [place, why] : listed.reasons) EXPECT_TRUE(kReasons.contains(why)) << why;
  EXPECT_GT(texts, 2500);
  fmt::print("{} rows, {} texts; as llguidance {}, as xgrammar {}, reasons listed for {}\n", rows.size(), texts,
             same["llguidance"], same["xgrammar"], differences.size());
}

}  // namespace
}  // namespace idefics::grammar
