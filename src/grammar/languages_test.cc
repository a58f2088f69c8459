// Which texts the grammars of each kind hold, and what is refused.
#include <gtest/gtest.h>

#include "grammar/test_grammars.h"

namespace idefics::grammar {
namespace {

struct Row {
  std::string source;
  std::vector<std::string> held, not_held;
};

void check(Kind kind, const std::vector<Row>& rows) {
  for (const Row& row : rows) {
    SCOPED_TRACE(row.source);
    const auto grammar = compile(kind, row.source);
    for (const std::string& text : row.held) EXPECT_TRUE(holds(*grammar, text)) << text;
    for (const std::string& text : row.not_held) EXPECT_FALSE(holds(*grammar, text)) << text;
  }
}

void check_refused(Kind kind, const std::vector<std::pair<std::string, std::string>>& rows) {
  for (const auto& [source, message] : rows) {
    const std::string said = refusal(kind, source, {.build_time = std::chrono::seconds(60)});
    EXPECT_NE(said.find(message), std::string::npos) << source.substr(0, 200) << "\nsaid: " << said;
    EXPECT_EQ(said.find('\n'), std::string::npos);
  }
}

TEST(Regex, holds_what_it_matches_as_a_whole) {
  check(Kind::kRegex,
        {{"a*b", {"b", "ab", "aaab"}, {"", "a", "abb", "xab"}},
         {"^(yes|no)$", {"yes", "no"}, {"", "yesno", "Yes"}},
         {"^a|b$", {"a", "b"}, {"ab"}},
         {"[^a-c]", {"d", "é", "字", "😀", "\n"}, {"a", "b", "c", "", "dd", "\xff", "\xc3"}},
         {"[\\d-]+", {"1-2", "-"}, {"a"}},
         {"x{2,3}", {"xx", "xxx"}, {"x", "xxxx"}},
         {"x{2}", {"xx"}, {"x", "xxx"}},
         {"x{2,}", {"xx", "xxxxx"}, {"x"}},
         {"(?:ab)+?c", {"abc", "ababc"}, {"c", "ab"}},
         {"(?<n>a)(?P<m>b)", {"ab"}, {"a"}},
         {".", {"a", "é"}, {"\n", "\r", "\u2028", "aa"}},
         {"\\w\\s\\D", {"a b", "_\u00a0é"}, {"a 1", "- b"}},
         {"\\x41\\u00e9\\u{1f600}\\ud83d\\ude00", {"Aé😀😀"}, {"A"}},
         {"\\.\\*\\\\\\/]}", {".*\\/]}"}, {"a"}},
         {"(a|b)*abb", {"abb", "aabb", "babaabb"}, {"ab", "abba"}},
         {"(a*)*", {"", "aaa"}, {"b"}},
         {"", {""}, {"a"}},
         {"[à-ÿ]", {"à", "é", "ÿ"}, {"a", "Ā", "\xc3"}},
         {"[\\u0800-\\uffff]", {"\u0800", "\ud7ff", "\ue000", "\uffff"}, {"\u07ff", "\xed\xa0\x80", "😀"}}});
}

TEST(Regex, what_is_not_regular_or_not_supported_is_refused_with_its_offset) {
  check_refused(Kind::kRegex, {{"(a)\\1", "backreferences are not supported at offset"},
                               {"(?=a)", "lookaround"},
                               {"(?<!a)b", "lookaround"},
                               {"(?i)a", "this kind of group"},
                               {"\\bword", "\\b is not supported"},
                               {"\\p{L}", "escape \\p"},
                               {"a**", "a quantifier follows a quantifier"},
                               {"a++", "possessive"},
                               {"*a", "nothing to repeat"},
                               {"(a", "wanted ')' at offset 2"},
                               {"a)", "')' without '('"},
                               {"[a", "wanted ']'"},
                               {"[z-a]", "out of order"},
                               {"[[:alpha:]]", "POSIX"},
                               {"a{3,1}", "below its minimum"},
                               {"a{999999999999}", "over 100000"},
                               {"a^b", "anchor"},
                               {"a$b", "'$' is supported at the end only"},
                               {"a{", "wanted a number"},
                               {"\\", "ends with"},
                               {"\\ud800", "no character"},
                               {"\\u{110000}", "no character"},
                               {"\xff", "not valid UTF-8"},
                               {"[]", "no text can satisfy it"}});
}

TEST(Regex, growth_without_end_is_refused) {
  check_refused(Kind::kRegex, {{"((a{1000}){1000}){1000}", "states"},
                               {"(a|b)*a(a|b){60}", "grammar: "},
                               {std::string(1000, '(') + std::string(1000, ')'), "nested more than"}});
}

TEST(Choice, holds_its_texts_only) {
  const auto grammar =
      CompiledGrammar::compile({Kind::kChoice, "", {"yes", "no", "not sure", "né"}}, test_vocabulary());
  for (const char* text : {"yes", "no", "not sure", "né"}) EXPECT_TRUE(holds(*grammar, text));
  for (const char* text : {"", "y", "not", "nox", "yesno"}) EXPECT_FALSE(holds(*grammar, text));
  EXPECT_THROW(CompiledGrammar::compile({Kind::kChoice, "", {}}, test_vocabulary()), Error);
  EXPECT_THROW(CompiledGrammar::compile({Kind::kChoice, "", {"a", ""}}, test_vocabulary()), Error);
  EXPECT_THROW(CompiledGrammar::compile({Kind::kChoice, "", {"\xff"}}, test_vocabulary()), Error);
}

TEST(Gbnf, holds_what_its_rules_derive) {
  check(Kind::kGrammar, {{"root ::= \"a\" | \"b\" \"c\"", {"a", "bc"}, {"b", "ac"}},
                         {"# sums\nroot ::= term (\"+\" term)*\nterm ::= [0-9]+ | \"(\" root \")\"\n",
                          {"1", "1+2", "(1+(2+3))+4"},
                          {"", "1+", "(1", "1)"}},
                         {"root ::= (\n  \"a\" |\n  \"b\" # either\n)\n", {"a", "b"}, {"ab"}},
                         {"root ::= \"x\" |\n  \"y\"", {"x", "y"}, {}},
                         {"root ::= [^\"\\\\]{2,3} \"\\\"\" \"\\x41\\u00e9\\U0001f600\"", {"abé\"Aé😀"}, {"a\"Aé😀"}},
                         {"root ::= \"a\" root | \"\"", {"", "aaaa"}, {"b"}},
                         {"root ::= ws \"a\" ws\nws ::= [ \\t\\n]*", {"a", "  a\n"}, {"b"}},
                         {"root ::= . .", {"é!", "\n\n"}, {"a"}},
                         {"root ::= item{2} \"!\"?\nitem ::= \"ab\"", {"abab", "abab!"}, {"ab!", "ababab"}},
                         {"root ::= \"<doctag>\" [a-z]* \"</doctag>\"", {"<doctag>abc</doctag>"}, {"<doctag>"}}});
}

TEST(Gbnf, recursion_is_followed_as_deep_as_the_limit) {
  const auto grammar = compile(Kind::kGrammar, "root ::= \"(\" root \")\" | \"x\"");
  const auto nested = [](size_t n) { return std::string(n, '(') + "x" + std::string(n, ')'); };
  EXPECT_TRUE(holds(*grammar, nested(256)));
  EXPECT_FALSE(holds(*grammar, nested(257)));
  // What comes last in its rule needs no stack.
  EXPECT_TRUE(holds(*compile(Kind::kGrammar, "root ::= \"(\" root | \"x\""), std::string(5000, '(') + "x"));
}

TEST(Gbnf, mistakes_are_refused_with_line_and_column) {
  check_refused(Kind::kGrammar, {{"root ::= x", "x is used but not defined at line 1, column 10"},
                                 {"a ::= \"b\"", "no rule \"root\""},
                                 {"", "no rule \"root\""},
                                 {"root ::= \"a", "to end a text at line 1"},
                                 {"root ::= (\"a\"", "wanted ')'"},
                                 {"root ::= root \"a\" | \"b\"", "left recursion"},
                                 {"root ::= e root \"a\" | \"b\"\ne ::= \"c\"?", "left recursion"},
                                 {"root ::= a\na ::= b\nb ::= a", "no text can satisfy it"},
                                 {"root ::= \"a\" root", "no text can satisfy it"},
                                 {"root ::= \"a\"\nroot ::= \"b\"", "defined twice at line"},
                                 {"root ::= <think>", "tokens in grammars"},
                                 {"root = \"a\"", "wanted ::="},
                                 {"start: \"a\"", "wanted ::="},
                                 {"root ::= \"a\" )", "wanted the end of the rule"},
                                 {"root ::= \"\\q\"", "escape is not supported"},
                                 {"root ::= \"a\"{5,2}", "below its minimum"}});
}

TEST(Grammar, ambiguity_without_end_is_an_error_and_never_freedom) {
  // Every way to cut a text into pieces is a reading of its own; equal stacks count once, so this one stays small.
  const auto grammar = compile(Kind::kGrammar, "root ::= p \".\"\np ::= (\"a\" | \"aa\" | \"aaa\") p | \"a\"");
  EXPECT_TRUE(holds(*grammar, std::string(3000, 'a') + "."));
}

}  // namespace
}  // namespace idefics::grammar
