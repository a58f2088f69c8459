#include "text/pre_tokenizer.h"

#include <gtest/gtest.h>

#include "text/testing.h"

namespace idefics {
namespace {

using Pieces = std::vector<std::string>;

Pieces split(const json::value& pre_tokenizer, std::string_view text) {
  PreTokenizer::Scratch scratch;
  const PreTokenizer parsed = PreTokenizer::parse(pre_tokenizer, "pre_tokenizer");
  const auto& pieces = parsed.split(text, scratch);
  return {pieces.begin(), pieces.end()};
}

json::object bytes_only(bool add_prefix_space = false) {
  return {{"type", "ByteLevel"}, {"add_prefix_space", add_prefix_space}, {"use_regex", false}};
}

json::object sequence(json::array steps) {
  steps.emplace_back(bytes_only());
  return {{"type", "Sequence"}, {"pretokenizers", std::move(steps)}};
}

json::object cut(std::string_view kind, std::string_view pattern, std::string_view behavior, bool invert = false) {
  return {{"type", "Split"}, {"pattern", {{kind, pattern}}}, {"behavior", behavior}, {"invert", invert}};
}

std::string error_of(const json::value& pre_tokenizer) {
  try {
    PreTokenizer::parse(pre_tokenizer, "pre_tokenizer");
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kBadModel);
    return e.what();
  }
  return "no error";
}

TEST(PreTokenizer, byte_level_cuts_like_gpt2) {
  EXPECT_EQ(split(testing_text::byte_level(), "I'm 42,  don't!\n\n x"),
            (Pieces{"I", "'m", " 42", ",", " ", " don", "'t", "!", "\n\n", " x"}));
  EXPECT_EQ(split(testing_text::byte_level(), "IT'S"), (Pieces{"IT", "'", "S"}));
  EXPECT_EQ(split(testing_text::byte_level(), ""), Pieces{});
  EXPECT_EQ(split(bytes_only(), "a b"), Pieces{"a b"});
}

TEST(PreTokenizer, a_blank_is_put_before_every_piece_that_has_none) {
  EXPECT_EQ(split(bytes_only(true), "ab"), Pieces{" ab"});
  EXPECT_EQ(split(bytes_only(true), " ab"), Pieces{" ab"});
  json::object steps = sequence({cut("String", "-", "Removed")});
  steps["pretokenizers"].as_array().back() = bytes_only(true);
  EXPECT_EQ(split(steps, "a- b-c"), (Pieces{" a", " b", " c"}));
}

TEST(PreTokenizer, digits_stand_alone_or_in_runs) {
  const auto digits = [](bool each) {
    return sequence({json::object{{"type", "Digits"}, {"individual_digits", each}}});
  };
  EXPECT_EQ(split(digits(true), "a 12b½Ⅻ三"), (Pieces{"a ", "1", "2", "b", "½", "Ⅻ", "三"}));
  EXPECT_EQ(split(digits(false), "a 12b½Ⅻ三"), (Pieces{"a ", "12", "b", "½Ⅻ", "三"}));
}

TEST(PreTokenizer, split_behaviors) {
  const auto pieces = [](std::string_view behavior, bool invert = false) {
    return split(sequence({cut("String", "-", behavior, invert)}), "-a--b-");
  };
  EXPECT_EQ(pieces("Isolated"), (Pieces{"-", "a", "-", "-", "b", "-"}));
  EXPECT_EQ(pieces("Removed"), (Pieces{"a", "b"}));
  EXPECT_EQ(pieces("Contiguous"), (Pieces{"-", "a", "--", "b", "-"}));
  EXPECT_EQ(pieces("MergedWithPrevious"), (Pieces{"-", "a-", "-", "b-"}));
  EXPECT_EQ(pieces("MergedWithNext"), (Pieces{"-a", "-", "-b", "-"}));
  EXPECT_EQ(pieces("Removed", true), (Pieces{"-", "-", "-", "-"}));
}

TEST(PreTokenizer, empty_matches_cut_but_make_no_pieces) {
  EXPECT_EQ(split(sequence({cut("Regex", "x*", "Isolated")}), "axxé"), (Pieces{"a", "xx", "é"}));
}

TEST(PreTokenizer, steps_see_only_their_piece) {
  // The look-ahead of GPT-2's expression does not cross the digit.
  const json::object digits{{"type", "Digits"}, {"individual_digits", true}};
  json::object steps{{"type", "Sequence"}, {"pretokenizers", json::array{digits, testing_text::byte_level()}}};
  EXPECT_EQ(split(steps, "a  1"), (Pieces{"a", "  ", "1"}));
  EXPECT_EQ(split(json::object{{"type", "Sequence"}, {"pretokenizers", json::array{steps}}}, "a  1"),
            (Pieces{"a", "  ", "1"}));
}

TEST(PreTokenizer, refuses_what_it_does_not_know) {
  const auto contains = [](const std::string& text, std::string_view part) {
    return text.find(part) != std::string::npos;
  };
  EXPECT_PRED2(contains, error_of(json::object{{"type", "Metaspace"}}), "type is \"Metaspace\"");
  EXPECT_PRED2(contains, error_of(json::object{}), "type is \"\"");
  EXPECT_PRED2(contains, error_of(7), "wanted a JSON object, found 7");
  EXPECT_PRED2(contains, error_of(json::object{{"type", "Digits"}}), "does not end in ByteLevel");
  EXPECT_PRED2(contains, error_of(json::object{{"type", "Sequence"}, {"pretokenizers", json::array{}}}),
               "does not end in");
  EXPECT_PRED2(contains, error_of(json::object{{"type", "Sequence"}}), "pretokenizers is missing");
  EXPECT_PRED2(contains, error_of(sequence({bytes_only()})), "pretokenizers[1]: type is \"ByteLevel\" after ByteLevel");
  EXPECT_PRED2(contains, error_of(sequence({cut("String", "", "Isolated")})), "pattern has neither");
  EXPECT_PRED2(contains, error_of(sequence({cut("Glob", "a", "Isolated")})), "pattern has neither");
  EXPECT_PRED2(contains, error_of(sequence({cut("Regex", "\\b", "Isolated")})), "Regex uses \\b at byte 0");
  EXPECT_PRED2(contains, error_of(sequence({cut("String", "a", "Shuffled")})), "behavior is \"Shuffled\"");
  json::array many;
  for (int i = 0; i < 40; ++i) many.emplace_back(cut("String", "a", "Isolated"));
  EXPECT_PRED2(contains, error_of(sequence(many)), "at most 32 are supported");
}

}  // namespace
}  // namespace idefics
