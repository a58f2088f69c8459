#include "text/added_tokens.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "text/testing.h"

namespace idefics {
namespace {

using testing_text::added_token;

AddedTokens parse(const json::array& array) { return AddedTokens::parse(array, "added_tokens", Vocabulary()); }

// Tokens as {content}, texts as "text", texts that stand for a token of a user as 'text'; `|` between.
std::string show(const AddedTokens& tokens, std::string_view text, const Trust& trust = {}) {
  std::string out;
  for (const Segment& s : tokens.split(text, trust)) {
    const std::string part(text.substr(s.begin, s.end - s.begin));
    out += out.empty() ? "" : "|";
    if (s.token != nullptr) {
      out += fmt::format("{{{}}}", s.token->content);
    } else {
      out += s.untrusted ? fmt::format("'{}'", part) : fmt::format("\"{}\"", part);
    }
  }
  return out;
}

AddedTokens special(std::initializer_list<std::string_view> contents) {
  json::array array;
  for (const std::string_view c : contents)
    array.emplace_back(added_token(static_cast<int>(array.size()), c, {"special"}));
  return parse(array);
}

TEST(AddedTokens, the_leftmost_longest_match_counts) {
  const AddedTokens tokens = special({"<a>", "<a>b", "><", "<row_1_col_1>", "<row_1_col_10>"});
  EXPECT_EQ(show(tokens, ""), "");
  EXPECT_EQ(show(tokens, "x"), "\"x\"");
  EXPECT_EQ(show(tokens, "<a><a>b"), "{<a>}|{<a>b}");
  EXPECT_EQ(show(tokens, "<<a>>"), "\"<\"|{<a>}|\">\"");
  EXPECT_EQ(show(tokens, "<row_1_col_10><row_1_col_1>0"), "{<row_1_col_10>}|{<row_1_col_1>}|\"0\"");
  EXPECT_EQ(show(tokens, "<row_1_col_1"), "\"<row_1_col_1\"");
}

TEST(AddedTokens, tokens_that_are_not_normalized_come_first) {
  const AddedTokens tokens = parse({added_token(0, "<a", {"normalized"}), added_token(1, "a>", {})});
  EXPECT_EQ(show(tokens, "<a>"), "\"<\"|{a>}");
  EXPECT_EQ(show(tokens, "<a"), "{<a}");
}

TEST(AddedTokens, white_space_is_swallowed_up_to_the_match_before) {
  const AddedTokens tokens = parse({added_token(0, "<l>", {"lstrip"}), added_token(1, "<r>", {"rstrip"})});
  EXPECT_EQ(show(tokens, "a \u3000<l> b"), "\"a\"|{<l>}|\" b\"");
  EXPECT_EQ(show(tokens, "a <r>\u00a0 b"), "\"a \"|{<r>}|\"b\"");
  EXPECT_EQ(show(tokens, "<r> <l>"), "{<r>}|{<l>}");
  EXPECT_EQ(show(tokens, " <l>"), "{<l>}");
}

TEST(AddedTokens, a_single_word_has_no_letter_next_to_it) {
  const AddedTokens tokens = parse({added_token(0, "ab", {"single_word"}), added_token(1, "b", {})});
  EXPECT_EQ(show(tokens, "ab"), "{ab}");
  EXPECT_EQ(show(tokens, "-ab."), "\"-\"|{ab}|\".\"");
  for (const std::string_view text : {"xab", "1ab", "_ab", "éab", "abx", "ab\u0301", "ab\u200d"}) {
    EXPECT_EQ(show(tokens, text), fmt::format("\"{}\"", text)) << text;  // and it hides the b in it
  }
}

TEST(AddedTokens, text_without_trust_runs_through_special_tokens_only) {
  const AddedTokens tokens = parse({added_token(0, "<s>", {"special"}), added_token(1, "<n>", {"normalized"})});
  EXPECT_EQ(show(tokens, "a<s>b<n>c", {Trust::Kind::kNone, {}}), "\"a<s>b\"|{<n>}|\"c\"");
}

TEST(AddedTokens, special_tokens_of_users_are_text_of_their_own) {
  const AddedTokens tokens = special({"<s>"});
  const auto mixed = [&](std::string_view text, std::vector<TextRange> untrusted) {
    return show(tokens, text, {Trust::Kind::kExcept, untrusted});
  };
  EXPECT_EQ(mixed("<s>a<s>b<s>", {{3, 8}}), "{<s>}|\"a\"|'<s>'|\"b\"|{<s>}");
  EXPECT_EQ(mixed("<s>", {{0, 3}}), "'<s>'");
  EXPECT_EQ(mixed("<s>", {{1, 3}}), "{<s>}");
  EXPECT_EQ(mixed("<s>", {{0, 2}}), "{<s>}");
  EXPECT_EQ(mixed("<s>", {{0, 0}, {3, 3}}), "{<s>}");
  EXPECT_EQ(mixed("<s>", {}), "{<s>}");
}

TEST(AddedTokens, a_special_token_cut_in_touching_ranges_is_text) {
  const std::vector<TextRange> ranges = {{0, 1}, {1, 1}, {1, 2}, {2, 3}};
  EXPECT_EQ(show(special({"<s>"}), "<s>", {Trust::Kind::kExcept, ranges}), "'<s>'");
}

TEST(AddedTokens, text_of_a_user_keeps_its_white_space) {
  const AddedTokens tokens = parse({added_token(0, "<s>", {"special", "lstrip", "rstrip"})});
  const std::vector<TextRange> ranges = {{0, 5}};
  EXPECT_EQ(show(tokens, " <s> ", {Trust::Kind::kExcept, ranges}), "\" \"|'<s>'|\" \"");
}

TEST(AddedTokens, refuses_contradictions) {
  const auto error_of = [](const json::array& array, const Vocabulary& vocabulary = {}) -> std::string {
    try {
      AddedTokens::parse(array, "added_tokens", vocabulary);
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kBadModel);
      return e.what();
    }
    return "no error";
  };
  EXPECT_EQ(error_of({added_token(0, "a", {}), added_token(1, "a", {})}),
            "added_tokens[1]: the token \"a\" with id 1 stands there twice");
  EXPECT_EQ(error_of({added_token(0, "a", {}), added_token(0, "b", {})}),
            "added_tokens[1]: the token \"b\" with id 0 has the id of another added token");
  const Vocabulary vocabulary = Vocabulary::parse({{"a", 0}, {"b", 1}}, "vocab");
  EXPECT_EQ(error_of({added_token(0, "a", {})}, vocabulary), "no error");
  EXPECT_EQ(error_of({added_token(2, "c", {})}, vocabulary), "no error");
  EXPECT_EQ(error_of({added_token(2, "a", {})}, vocabulary),
            "added_tokens[0]: the token \"a\" with id 2 has the id 0 in the model's vocabulary");
  EXPECT_EQ(error_of({added_token(1, "c", {})}, vocabulary),
            "added_tokens[0]: the token \"c\" with id 1 has the id of another token of the model's vocabulary");
  EXPECT_EQ(error_of({7}), "added_tokens[0]: wanted a JSON object, found 7");
  EXPECT_EQ(error_of({json::object{{"id", 1}}}), "added_tokens[0]: content is missing");
  EXPECT_EQ(error_of({json::object{{"content", "a"}}}), "added_tokens[0]: id is missing");
  EXPECT_NE(error_of({added_token(-1, "a", {})}), "no error");
  EXPECT_NE(error_of({added_token(Vocabulary::kMaxId + 1, "a", {})}), "no error");
  EXPECT_NE(error_of({added_token(0, std::string(2000, 'a'), {})}), "no error");
  EXPECT_EQ(error_of({added_token(0, "", {}), added_token(0, "", {})}), "no error");  // ignored, as in the reference
}

}  // namespace
}  // namespace idefics
