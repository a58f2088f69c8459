#include "cli/suggestions.h"

#include <gtest/gtest.h>

#include <vector>

namespace idefics::cli {
namespace {

TEST(EditDistance, counts_insertions_deletions_replacements_and_swaps) {
  EXPECT_EQ(edit_distance("", ""), 0);
  EXPECT_EQ(edit_distance("abc", ""), 3);
  EXPECT_EQ(edit_distance("", "ab"), 2);
  EXPECT_EQ(edit_distance("seed", "seed"), 0);
  EXPECT_EQ(edit_distance("sead", "seed"), 1);
  EXPECT_EQ(edit_distance("sed", "seed"), 1);
  EXPECT_EQ(edit_distance("esed", "seed"), 1);
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3);
}

TEST(EditDistance, is_the_same_both_ways) {
  const std::vector<std::string> words = {"--top-k", "--top-p", "--stop", "--seed", "generate", "x", ""};
  for (const std::string& a : words) {
    for (const std::string& b : words) EXPECT_EQ(edit_distance(a, b), edit_distance(b, a)) << a << " " << b;
  }
}

TEST(Nearest, names_the_word_that_was_meant) {
  const std::vector<std::string> verbs = {"generate", "chat", "show", "doctor", "tiles"};
  EXPECT_EQ(nearest("genrate", verbs), "generate");
  EXPECT_EQ(nearest("shwo", verbs), "show");
  EXPECT_EQ(nearest("tile", verbs), "tiles");
  EXPECT_EQ(nearest("doktor", verbs), "doctor");
}

TEST(Nearest, says_nothing_when_nothing_is_near) {
  const std::vector<std::string> verbs = {"generate", "chat"};
  EXPECT_EQ(nearest("xyzzy", verbs), "");
  EXPECT_EQ(nearest("", verbs), "");
  EXPECT_EQ(nearest("chat", {}), "");
}

}  // namespace
}  // namespace idefics::cli
