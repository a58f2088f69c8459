// Masks against a plain reference, which asks the recognizer about every token by itself: random grammars, random
// walks, and a vocabulary of tokens that lie across whatever there is to lie across.
#include "grammar/masks.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <random>

#include "grammar/test_grammars.h"
#include "text/testing.h"

namespace idefics::grammar {
namespace {

class Random {
 public:
  explicit Random(uint32_t seed) : engine_(seed) {}
  uint32_t below(size_t n) { return static_cast<uint32_t>(engine_() % n); }
  bool one_in(uint32_t n) { return below(n) == 0; }
  template <typename T>
  const T& of(const std::vector<T>& list) {
    return list[below(list.size())];
  }

 private:
  std::mt19937 engine_;
};

// All bytes, words and white space as in real vocabularies, and 1500 tokens of random parts: characters that are cut
// off in front or behind, no UTF-8 at all, quotes and escapes within words, runs longer than any that is known.
std::shared_ptr<const TokenVocabulary> odd_vocabulary() {
  static const auto vocabulary = [] {
    const std::vector<std::string> parts = {
        "a",    "b",        "xyz",      "A",        "Bc",   " ",        "  ",   "\n",   "\t",   "\"",   "\\",
        "\\\"", "\\u00",    "\\ud83d",  "\\ude00",  "1",    "27",       "-",    ".",    "e",    ",",    ":",
        "{",    "}",        "[",        "]",        "é",    "字",       "😀",    "\x7f", "\xc3", "\xa9", "\xe5\xad",
        "\xe5", "\xad\x97", "\xf0\x9f", "\x98\x80", "\xff", "\xed\xa0", "\xc0", "<b>",  "</b>", "true", "null"};
    std::set<std::string> tokens = {std::string(20, ' '),
                                    std::string(31, ' '),
                                    std::string(32, ' '),
                                    std::string(33, ' '),
                                    std::string(40, 'a'),
                                    std::string(64, 'a'),
                                    std::string(40, 'a') + "\"",
                                    "the",
                                    " the",
                                    " them",
                                    "\",",
                                    "\":",
                                    "\": \"",
                                    "éééé",
                                    "éééééé",
                                    "zéééé"};
    Random random(1);
    while (tokens.size() < 1500) {
      std::string token;
      for (uint32_t i = 1 + random.below(random.one_in(4) ? 8 : 3); i > 0; --i) token += random.of(parts);
      tokens.insert(token);
    }
    json::object vocab = testing_text::byte_vocabulary();
    for (const std::string& token : tokens) {
      std::string spelled;
      for (const char c : token) append_utf8(spelled, spelling_of_byte(static_cast<uint8_t>(c)));
      if (!vocab.contains(spelled)) vocab[spelled] = static_cast<int64_t>(vocab.size());
    }
    const std::string text = json::serialize(testing_text::tokenizer_json(testing_text::bpe_model(std::move(vocab))));
    return std::make_shared<const TokenVocabulary>(Tokenizer::parse(text, "odd tokens"));
  }();
  return vocabulary;
}

// ---- Random grammars

std::string random_class(Random& random) {
  return random.of<std::string>({"[a-z]", "[^\\n]", "[a-zA-Z ]", "[^a-z]", ".", "[^\"\\\\]", "\\w", "[ab]", "[^<]",
                                 "[é字a-c]", "[\\u{80}-\\u{10ffff}]", "[\\x00-\\u{10ffff}]", "[\\x00-\\x7f]"});
}

std::string random_count(Random& random) {
  switch (random.below(7)) {
    case 0: return "*";
    case 1: return "+";
    case 2: return "?";
    case 3: return fmt::format("{{{},}}", random.below(4));
    case 4: return fmt::format("{{1,{}}}", 1 + random.below(70));
    default: return fmt::format("{{{},{}}}", random.below(3), 3 + random.below(8));
  }
}

std::string random_regex(Random& random, int depth) {
  std::string result;
  for (uint32_t i = 1 + random.below(3); i > 0; --i) {
    if (depth > 0 && random.one_in(3)) {
      result += "(" + random_regex(random, depth - 1) +
                (random.one_in(2) ? "|" + random_regex(random, depth - 1) : "") + ")" +
                random.of<std::string>({"", "*", "?", "{1,3}"});
    } else if (random.one_in(3)) {
      result += random.of<std::string>({"the", "a", " ", "é", "😀", "\"", "xyz"});
    } else {
      result += random_class(random) + random_count(random);
    }
  }
  return result;
}

// Rules that call only those after them and, at ends or behind a byte, any.
std::string random_gbnf(Random& random) {
  const uint32_t count = 2 + random.below(4);
  std::string result;
  for (uint32_t rule = 0; rule < count; ++rule) {
    const auto later = [&] { return fmt::format("r{}", std::min(rule + 1 + random.below(count), count)); };
    std::string body;
    for (uint32_t way = 1 + random.below(3); way > 0; --way) {
      for (uint32_t i = 1 + random.below(3); i > 0; --i) {
        switch (random.below(9)) {
          case 0: body += later() + " "; break;
          case 4:  // two readings of the same characters
            body += fmt::format("([a-z ] | {}){} ", later(), random.of<std::string>({"{2,6}", "+", "{0,40}"}));
            break;
          case 5:  // the same characters, or all of them, by a rule
            body += fmt::format("([^\\x80-\\U0010FFFF] | {}){} ", random.of<std::string>({"rare", "[é-字]"}),
                                random.of<std::string>({"{2,6}", "{0,40}"}));
            break;
          case 1: body += "(" + later() + ")" + random.of<std::string>({"*", "+", "?", "{1,3}"}) + " "; break;
          case 2:
            body += fmt::format("\"{}\" r{} ", random.of<std::string>({"<", "(", "a"}), random.below(count));
            break;
          case 3: body += random.of<std::string>({"\"b\" ", "\"é\" ", "\" the\" ", "\"\\\"\" "}); break;
          default:
            body += random.of<std::string>({"[a-z]", "[^<]", "[^a-z\\n]", "[A-Z ]", "[a-zé-字]"}) +
                    random.of<std::string>({"", "*", "+", "?", "{2,5}", "{0,40}"}) + " ";
        }
      }
      if (way > 1) body += "| ";
    }
    result += fmt::format("{} ::= {}\n", rule == 0 ? "root" : fmt::format("r{}", rule), body);
  }
  return result + fmt::format("r{} ::= [a-z ]{{1,5}} | \".\"\nr0 ::= root\nrare ::= [\\x80-\\U0010FFFF]\n", count);
}

std::string random_schema(Random& random) {
  const auto string = [&]() -> std::string {
    switch (random.below(6)) {
      case 0: return R"({"type":"string"})";
      case 1: return fmt::format(R"({{"type":"string","maxLength":{}}})", 1 + random.below(50));
      case 2: return fmt::format(R"({{"type":"string","minLength":{},"maxLength":{}}})", random.below(40), 300);
      case 3: return R"({"type":"string","pattern":"^[a-z]{2,9}$"})";
      case 4: return R"({"type":"string","pattern":"x","maxLength":12})";
      default: return fmt::format(R"({{"type":"string","minLength":{}}})", random.below(9));
    }
  };
  const std::string other = random.of<std::string>(
      {R"({"type":"number"})", R"({"enum":["the",1,null,"é\"b"]})", "true", R"({"$ref":"#"})", string()});
  switch (random.below(4)) {
    case 0:
      return fmt::format(R"({{"type":["array","null"],"items":{},"maxItems":4}})", random.one_in(2) ? string() : other);
    case 1: return fmt::format(R"({{"anyOf":[{},{{"type":"array","items":{}}},{}]}})", string(), other, string());
    case 2:
      return fmt::format(
          R"({{"type":"object","properties":{{"a":{},"the":{}}},"required":["a"],"additionalProperties":{}}})",
          string(), other, random.one_in(2) ? "false" : string());
    default: return fmt::format(R"({{"type":"object","properties":{{"é":{},"b":{}}}}})", other, string());
  }
}

std::shared_ptr<const CompiledGrammar> random_grammar(Random& random, std::string& source) {
  const Limits limits{.build_time = std::chrono::seconds(30)};
  StructuredOutput output;
  switch (random.below(3)) {
    case 0: output = {Kind::kRegex, random_regex(random, 2), {}}; break;
    case 1: output = {Kind::kGrammar, random_gbnf(random), {}}; break;
    default: output = {Kind::kJsonSchema, random_schema(random), {}}; break;
  }
  source = output.text;
  try {
    return CompiledGrammar::compile(output, odd_vocabulary(), limits);
  } catch (const Error&) {
    return nullptr;  // left recursion, or nothing that satisfies it
  }
}

// ---- The comparison

constexpr int32_t kEnd = 0;  // a NUL, which plays the stop token

std::vector<int32_t> expect_same_as_asking(TokenConstraint& constraint, std::span<uint32_t> bits) {
  std::vector<int32_t> allowed;
  constraint.mask(bits);
  for (int32_t id = 0; id < odd_vocabulary()->size(); ++id) {
    const bool wanted = constraint.accept(id);
    if (wanted) constraint.rollback(1);
    const bool got = (bits[static_cast<size_t>(id) / 32] >> (id % 32) & 1) != 0;
    EXPECT_EQ(got, wanted) << "token " << id << " '" << odd_vocabulary()->bytes(id) << "'";
    if (wanted && id != kEnd) allowed.push_back(id);
  }
  return allowed;
}

void walk(const std::shared_ptr<const CompiledGrammar>& grammar, Random& random, int& masks) {
  TokenConstraint constraint(grammar, {kEnd});
  std::vector<uint32_t> bits(odd_vocabulary()->mask_words());
  std::string text;
  for (int step = 0; step < 8 && !constraint.must_stop(); ++step) {
    SCOPED_TRACE(text);
    std::vector<int32_t> allowed;
    try {
      allowed = expect_same_as_asking(constraint, bits);
    } catch (const Error&) {
      return;  // more readings than are followed
    }
    ++masks;
    if (allowed.empty() || testing::Test::HasFailure()) return;
    const int32_t id = random.of(allowed);
    ASSERT_TRUE(constraint.accept(id));
    text += odd_vocabulary()->bytes(id);
  }
}

TEST(Masks, are_what_asking_about_every_token_gives) {
  const char* wish = std::getenv("IDEFICS_GRAMMARS");
  const int count = wish != nullptr ? std::atoi(wish) : 50;
  int compiled = 0, masks = 0;
  for (int i = 0; i < count && !HasFailure(); ++i) {
    Random random(static_cast<uint32_t>(i));
    std::string source;
    const auto grammar = random_grammar(random, source);
    if (grammar == nullptr) continue;
    ++compiled;
    SCOPED_TRACE(fmt::format("seed {}: {}", i, source));
    for (int k = 0; k < 2; ++k) walk(grammar, random, masks);  // the second one finds what the first one left
  }
  EXPECT_GT(compiled, count / 2);
  EXPECT_GT(masks, count * 3);
  fmt::print("{} grammars, {} masks\n", compiled, masks);
}

TEST(Masks, are_exact_where_runs_end_or_have_two_readings) {
  const std::vector<std::pair<Kind, std::string>> sources = {
      {Kind::kRegex, "[^\\n]{4}[\\x00-\\x7f]{3,9}"},  // the same of ASCII, but nothing else any more
      {Kind::kGrammar, "root ::= ([a-z] | w){4} \".\"\nw ::= [a-z] [a-z]"},
      {Kind::kGrammar, "root ::= ([^\\n] | w){4} \"\\n\"\nw ::= \"\xc3\xa9\" \"\xc3\xa9\""},
      {Kind::kGrammar, "root ::= ([a-z] | \"\xc3\xa9\" \"\xc3\xa9\" | w){3} \".\"\nw ::= [\\x80-\\U0010FFFF]"},
      {Kind::kGrammar, "root ::= ([a-z] | w){3} \".\"\nw ::= [\\x80-\\U0010FFFF] [\\x80-\\U0010FFFF]?"},
  };
  for (const auto& [kind, source] : sources) {
    SCOPED_TRACE(source);
    const auto grammar = CompiledGrammar::compile({kind, source, {}}, odd_vocabulary());
    Random random(0);
    int masks = 0;
    for (int i = 0; i < 4; ++i) walk(grammar, random, masks);
    EXPECT_GT(masks, 4);
  }
}

// Where calls are as deep as they may be, a string takes no character that needs one more.
TEST(Masks, at_the_depth_limit_are_what_asking_gives) {
  const std::string schema =
      R"({"$ref":"#/$defs/a","$defs":{"a":{"anyOf":[{"type":"array","items":{"$ref":"#/$defs/a"}},
    {"type":"string","maxLength":300}]}}})";
  const auto grammar = CompiledGrammar::compile({Kind::kJsonSchema, schema, {}}, odd_vocabulary());
  std::string opened(grammar->max_depth() + 1, '[');
  while (!holds(*grammar, opened + "\"", true)) opened.pop_back();
  int without = 0;
  for (size_t depth = opened.size() - 3; depth <= opened.size(); ++depth) {
    SCOPED_TRACE(depth);
    TokenConstraint constraint(grammar, {kEnd});
    const std::string text = opened.substr(0, depth) + "\"a";
    for (const char c : text) ASSERT_TRUE(constraint.accept(static_cast<uint8_t>(c)));
    std::vector<uint32_t> bits(odd_vocabulary()->mask_words());
    expect_same_as_asking(constraint, bits);
    without += !constraint.accept(0xc3);
  }
  EXPECT_EQ(without, 1);
}

}  // namespace
}  // namespace idefics::grammar
