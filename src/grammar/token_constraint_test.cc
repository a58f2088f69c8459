// Masks, steps and forced tokens with a real tokenizer.
#include "grammar/token_constraint.h"

#include <gtest/gtest.h>

#include <random>

#include "grammar/test_grammars.h"

namespace idefics::grammar {
namespace {

constexpr int32_t kStop = 1357;  // <end_of_utterance>

class Walk {
 public:
  explicit Walk(std::shared_ptr<const CompiledGrammar> grammar, uint32_t seed = 0)
      : constraint(std::move(grammar), {kStop}), bits(test_vocabulary()->mask_words()), random_(seed) {}

  bool allows(int32_t id) const { return bits[static_cast<size_t>(id) / 32] >> (id % 32) & 1; }

  // A token that the mask allows; from time to time the stop token, if it is allowed.
  int32_t choose() {
    constraint.mask(bits);
    if (allows(kStop) && random_() % 4 == 0) return kStop;
    std::vector<int32_t> ids;
    for (int32_t id = 0; id < test_vocabulary()->size(); ++id) {
      if (allows(id)) ids.push_back(id);
    }
    return ids[random_() % ids.size()];
  }

  TokenConstraint constraint;
  std::vector<uint32_t> bits;
  std::string text;

 private:
  std::mt19937 random_;
};

int32_t token(const char* text) { return test_vocabulary()->tokenizer().encode(text).at(0); }

// What the mask must be, asked byte by byte of the language itself.
void expect_same_as_byte_by_byte(Walk& walk, const CompiledGrammar& grammar) {
  walk.constraint.mask(walk.bits);
  for (int32_t id = 0; id < test_vocabulary()->size(); ++id) {
    const std::string_view bytes = test_vocabulary()->bytes(id);
    const bool wanted = id == kStop ? holds(grammar, walk.text)
                                    : !bytes.empty() && holds(grammar, walk.text + std::string(bytes), true);
    ASSERT_EQ(walk.allows(id), wanted) << "token " << id << " after " << walk.text;
    TokenConstraint copy = walk.constraint;
    ASSERT_EQ(copy.accept(id), wanted) << "token " << id << " after " << walk.text;
  }
}

TEST(TokenVocabulary, the_tree_holds_every_token_but_control_tokens) {
  const auto vocabulary = test_vocabulary();
  size_t count = 0;
  for (uint32_t n = 0; n + 1 < vocabulary->nodes().size(); ++n) {
    for (const int32_t id : vocabulary->tokens_at(n)) {
      EXPECT_EQ(vocabulary->bytes(id).size(), vocabulary->nodes()[n].depth);
      EXPECT_EQ(static_cast<uint8_t>(vocabulary->bytes(id).back()), vocabulary->nodes()[n].byte);
      ++count;
    }
  }
  size_t wanted = 0;
  for (int32_t id = 0; id < vocabulary->size(); ++id) {
    const Tokenizer& tokenizer = vocabulary->tokenizer();
    const bool in_tree = !tokenizer.is_special(id) && !tokenizer.token_bytes(id).empty();
    wanted += in_tree;
    EXPECT_EQ(vocabulary->bytes(id), in_tree ? tokenizer.token_bytes(id) : "");
  }
  EXPECT_EQ(count, wanted);
  EXPECT_TRUE(vocabulary->has_longer("t"));
  EXPECT_FALSE(vocabulary->has_longer("\x01\x02\x03"));
}

TEST(TokenConstraint, masks_are_those_of_asking_byte_by_byte) {
  const std::vector<std::pair<Kind, std::string>> sources = {
      {Kind::kJsonObject, ""},
      {Kind::kRegex, "(the|then|there)( card)*é?"},
      {Kind::kRegex, "[^a-z]{0,5}x"},
      {Kind::kGrammar, "root ::= e\ne ::= t (\"+\" t)*\nt ::= \"1\" | \"(\" e \")\""},
      {Kind::kGrammar, "root ::= p \".\"\np ::= (\"a\" | \"aa\") p | \"a\""},
      {Kind::kJsonSchema, R"({"type":"string","maxLength":5})"},  // ends within what tokens reach
      {Kind::kRegex, "([a-z ][a-z ])*[A-Z]"},                     // goes on alike, by turns
      {Kind::kGrammar, "root ::= w\nw ::= [a-z] w | [a-z] \".\""},
      {Kind::kJsonSchema,
       R"({"properties":{"name":{"type":"string","maxLength":300},"n":{"type":"integer","minimum":17},
        "more":{"type":"array","items":{"$ref":"#"}}},"required":["name"]})"}};
  for (const auto& [kind, source] : sources) {
    SCOPED_TRACE(source);
    const auto grammar = compile(kind, source);
    for (uint32_t seed = 0; seed < 3; ++seed) {
      Walk walk(grammar, seed);
      for (int step = 0; step < 8; ++step) {
        expect_same_as_byte_by_byte(walk, *grammar);
        if (HasFatalFailure()) return;
        const int32_t id = walk.choose();
        ASSERT_TRUE(walk.constraint.accept(id));
        if (id == kStop) break;
        walk.text += test_vocabulary()->bytes(id);
      }
    }
  }
}

TEST(TokenConstraint, masks_at_the_depth_limit_are_still_exact) {
  const auto grammar = compile(Kind::kJsonObject, "");
  Walk walk(grammar);
  walk.text = "{\"a\":";
  while (holds(*grammar, walk.text + "[", true)) walk.text += "[";
  walk.text.pop_back();
  for (const int32_t id : test_vocabulary()->tokenizer().encode(walk.text)) ASSERT_TRUE(walk.constraint.accept(id));
  expect_same_as_byte_by_byte(walk, *grammar);
}

TEST(TokenConstraint, the_stop_token_comes_exactly_when_the_text_is_complete) {
  Walk walk(compile(Kind::kRegex, "ab?"));
  EXPECT_FALSE(walk.constraint.accept(kStop));
  ASSERT_TRUE(walk.constraint.accept(token("a")));
  EXPECT_TRUE(walk.constraint.is_complete());
  EXPECT_FALSE(walk.constraint.must_stop());
  TokenConstraint other = walk.constraint;
  ASSERT_TRUE(other.accept(token("b")));
  EXPECT_TRUE(other.must_stop());
  EXPECT_TRUE(walk.constraint.accept(kStop));
  EXPECT_TRUE(walk.constraint.must_stop());
  EXPECT_FALSE(walk.constraint.accept(kStop));
  walk.constraint.mask(walk.bits);
  EXPECT_EQ(walk.bits, std::vector<uint32_t>(walk.bits.size(), 0));
}

TEST(TokenConstraint, a_stop_id_that_has_text_is_never_text) {
  TokenConstraint constraint(compile(Kind::kRegex, "aa"), {token("a"), kStop});
  EXPECT_FALSE(constraint.accept(token("a")));
}

TEST(TokenConstraint, control_tokens_and_unknown_ids_are_refused) {
  Walk walk(compile(Kind::kRegex, "[^x]*"));
  for (const int32_t id : {0, 1356, 1360, -1, 1 << 20}) EXPECT_FALSE(walk.constraint.accept(id));
  walk.constraint.mask(walk.bits);
  EXPECT_FALSE(walk.allows(1360));
  EXPECT_TRUE(walk.allows(1378));  // <doctag> is text
}

TEST(TokenConstraint, rollback_brings_back_every_moment) {
  const auto grammar = compile(Kind::kJsonObject, "");
  for (uint32_t seed = 0; seed < 20; ++seed) {
    Walk walk(grammar, seed);
    std::vector<std::vector<uint32_t>> masks;
    std::vector<int32_t> ids;
    for (int i = 0; i < 40 && !walk.constraint.must_stop(); ++i) {
      ids.push_back(walk.choose());
      masks.push_back(walk.bits);
      ASSERT_TRUE(walk.constraint.accept(ids.back()));
    }
    while (walk.constraint.num_accepted() > 0) {
      const size_t back = std::min<size_t>(1 + walk.constraint.num_accepted() % 3, walk.constraint.num_accepted());
      walk.constraint.rollback(back);
      walk.constraint.mask(walk.bits);
      ASSERT_EQ(walk.bits, masks[walk.constraint.num_accepted()]);
    }
    for (const int32_t id : ids) ASSERT_TRUE(walk.constraint.accept(id));
  }
}

TEST(TokenConstraint, forced_bytes_end_where_there_is_a_choice) {
  Walk walk(compile(Kind::kRegex, "\\{\"name\":(\"a\"|null)\\}"));
  EXPECT_EQ(walk.constraint.forced_bytes(), "{\"name\":");
  std::string text;
  for (const int32_t id : walk.constraint.forced_tokens()) {
    ASSERT_TRUE(walk.constraint.accept(id));
    text += test_vocabulary()->bytes(id);
  }
  EXPECT_FALSE(text.empty());
  EXPECT_TRUE(std::string("{\"name\":").starts_with(text));
  EXPECT_FALSE(test_vocabulary()->has_longer(std::string("{\"name\":").substr(text.size())) && text == "{\"name\":");
}

TEST(TokenConstraint, a_text_without_choice_is_forced_to_its_end_as_the_tokenizer_writes_it) {
  const std::string wanted = "The quick card says 12345 é 字 😀!";
  TokenConstraint constraint(CompiledGrammar::compile({Kind::kChoice, "", {wanted}}, test_vocabulary()), {kStop});
  EXPECT_EQ(constraint.forced_bytes(), wanted);
  const auto ids = constraint.forced_tokens();
  EXPECT_EQ(ids, test_vocabulary()->tokenizer().encode(wanted));
  for (const int32_t id : ids) ASSERT_TRUE(constraint.accept(id));
  EXPECT_TRUE(constraint.must_stop());
  EXPECT_TRUE(constraint.forced_tokens().empty());
}

TEST(TokenConstraint, forced_tokens_are_those_of_any_whole_text) {
  // Whatever follows, the tokenizer begins the whole text with the forced tokens.
  const std::string prefix = "{\"name\": \"the card of\", \"value\": ";
  TokenConstraint constraint(compile(Kind::kRegex, "\\{\"name\": \"the card of\", \"value\": ([a-z\" ]+|[0-9]+)"),
                             {kStop});
  const auto ids = constraint.forced_tokens();
  EXPECT_GT(ids.size(), 5u);
  for (const char* rest : {"a", "the", " x", "\"", "9", "\" "}) {
    const auto whole = test_vocabulary()->tokenizer().encode(prefix + rest);
    EXPECT_TRUE(whole.size() >= ids.size() && std::equal(ids.begin(), ids.end(), whole.begin())) << rest;
  }
}

TEST(TokenConstraint, ambiguity_stays_small) {
  TokenConstraint constraint(compile(Kind::kGrammar, "root ::= s \".\"\ns ::= \"a\" s | \"aa\" s | \"a\""), {kStop});
  std::vector<uint32_t> bits(test_vocabulary()->mask_words());
  for (int i = 0; i < 2000; ++i) {
    constraint.mask(bits);
    ASSERT_TRUE(constraint.accept(token("a")));
  }
}

}  // namespace
}  // namespace idefics::grammar
