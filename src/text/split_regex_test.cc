#include "text/split_regex.h"

#include <gtest/gtest.h>

#include "idefics/error.h"

namespace idefics {
namespace {

// The first match as text, or "none".
std::string match(const std::string& pattern, std::string_view text) {
  const RegexScratch scratch;
  const auto found = SplitRegex::compile(pattern, "pattern").find(text, 0, scratch);
  return found ? std::string(text.substr(found->begin, found->end - found->begin)) : "none";
}

std::string error_of(const std::string& pattern) {
  try {
    SplitRegex::compile(pattern, "pattern");
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kBadModel);
    return e.what();
  }
  return "no error";
}

TEST(SplitRegex, classes_are_those_of_unicode) {
  EXPECT_EQ(match(R"(\s+)", "a\u0085\u00a0\u3000\u2028b"), "\u0085\u00a0\u3000\u2028");
  EXPECT_EQ(match(R"([^\s]+)", "\u3000é\u00a0"), "é");
  EXPECT_EQ(match(R"(\S)", "\u200b"), "\u200b");  // no white space
  EXPECT_EQ(match(R"(\d+)", "a²1٣½"), "1٣");
  EXPECT_EQ(match(R"(\p{N}+)", "a²1٣½b"), "²1٣½");
  EXPECT_EQ(match(R"(\p{L}+)", "1naïveéЖ日"), "naïveéЖ日");
  EXPECT_EQ(match(R"(\p{^L}+|x)", "ab12c"), "12");
  EXPECT_EQ(match(R"(\P{L}+)", "ab12c"), "12");
  EXPECT_EQ(match(R"(\p{Han}+)", "aカ日本"), "日本");
  EXPECT_EQ(match("[一-龥]+", "aカ日本"), "日本");
  EXPECT_EQ(match(R"(.+)", "\n\u2028é\nx"), "\u2028é");
}

// Oniguruma has the superscripts of Latin-1 in \w, but not in [\w].
TEST(SplitRegex, word_characters_are_oniguruma_s) {
  EXPECT_EQ(match(R"(\w+)", "-a²½_Ⓐ-"), "a²½_Ⓐ");
  EXPECT_EQ(match(R"([\w]+)", "-a²"), "a");
}

TEST(SplitRegex, case_is_ignored_as_unicode_folds_it) {
  EXPECT_EQ(match("(?i:'s|'k)", "x'\u017f"), "'\u017f");
  EXPECT_EQ(match("(?i:'s|'k)", "x'\u212a"), "'\u212a");
  EXPECT_EQ(match("(?i:'s)t", "x'St'sT"), "'St");
}

TEST(SplitRegex, quantifiers_and_groups) {
  EXPECT_EQ(match(R"(\p{N}{1,3})", "12345"), "123");
  EXPECT_EQ(match("a{2}", "aaa"), "aa");
  EXPECT_EQ(match("a+?b*", "aab"), "a");
  EXPECT_EQ(match("a++a|b", "aab"), "b");
  EXPECT_EQ(match("(?>a+)a|b", "aab"), "b");
  EXPECT_EQ(match("(?<=x)a(?!b)", "axabxac"), "a");
  EXPECT_EQ(match("(a|b)+", "cabc"), "ab");
  EXPECT_EQ(match(R"(\(\?\)\[\]\{\}\\)", R"(x(?)[]{}\)"), R"((?)[]{}\)");
}

TEST(SplitRegex, look_behind_sees_what_is_before_the_start) {
  const RegexScratch scratch;
  const SplitRegex regex = SplitRegex::compile("(?<=a)b", "pattern");
  EXPECT_TRUE(regex.find("ab", 1, scratch).has_value());
  EXPECT_FALSE(regex.find("ab", 2, scratch).has_value());
}

TEST(SplitRegex, refuses_what_the_two_dialects_read_differently) {
  for (const std::string pattern :
       {"^a",        "a$",          R"(\b)",       R"(\A)",          R"(\h)",    R"(\v)",    R"(\x41)",  R"(\u0041)",
        R"(\1)",     R"(\W)",       R"(\D)",       R"(\X)",          R"(\R)",    R"(\K)",    R"(\Qa\E)", R"(\pL)",
        R"(\p{L&})", R"(\p{Nope})", "[[:alpha:]]", "[a-z&&[aeiou]]", "[]a]",     "[^]a]",    "[a",       "(a",
        "a)",        "(?m:a)",      "(?i)a",       "(?<n>a)",        "(?#x)",    "(*FAIL)",  "(?|a)",    "(?1)",
        "a{,3}",     "a{2}?",       "a{2}+",       "a{2,3}?",        "a{",       "{}",       "*a",       "a\\",
        "(?i:ss)",   "(?i:Fi)",     "(?i:sT)",     "(?i:é)",         "(?i:(ſ))", "(?i:[ß])", R"(a\é)",   "[z-a]",
        "a{3,2}",    "a{99999}",    "a**"}) {
    EXPECT_NE(error_of(pattern), "no error") << pattern;
  }
  EXPECT_EQ(error_of("x[[:alpha:]]"), "pattern uses a [ inside of [ ] at byte 2, which is not supported");
  EXPECT_EQ(error_of(std::string(9000, 'a')), "pattern has 9000 bytes, at most 8192 are supported");
  EXPECT_NE(error_of(std::string(4000, '(') + std::string(4000, ')')), "no error");
}

TEST(SplitRegex, backtracking_without_end_is_stopped) {
  const RegexScratch scratch;
  const SplitRegex regex = SplitRegex::compile("(a|aa|aaa)+[cd]", "pattern");
  try {
    regex.find(std::string(10000, 'a') + "b", 0, scratch);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kInvalidValue);
    EXPECT_NE(std::string(e.what()).find("gave up at byte 0 of 10001"), std::string::npos) << e.what();
  }
}

// Deep recursion would overflow the stack; PCRE2's small JIT stack must not make a difference.
TEST(SplitRegex, long_runs_of_a_group_match) {
  EXPECT_EQ(match("(?:a|b)+c", std::string(200000, 'a') + "c").size(), 200001u);
}

}  // namespace
}  // namespace idefics
