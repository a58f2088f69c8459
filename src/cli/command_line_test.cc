#include "cli/command_line.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "cli/verbs.h"
#include "idefics/error.h"

namespace idefics::cli {
namespace {

// A command line with a verb that has one of each kind of option.
struct Example {
  std::string model;
  std::optional<std::string> word, text, choice;
  std::vector<std::string> images;
  std::optional<int> count, length;
  std::optional<uint64_t> seed;
  std::optional<double> rate;
  bool json = false;
  bool ran = false;

  int run(std::vector<std::string> words) {
    CommandLine line("idefics", "1.2.3", "A summary.");
    Verb& verb = line.add_verb("ask", "Ask.", "idefics ask m");
    verb.argument("MODEL", "A folder", model);
    verb.argument("WORD", "A word", word);
    verb.text("-t,--text", "TEXT", "A text", text);
    verb.text("--choice", "one|two", "A choice", choice);
    verb.texts("--image", "FILE", "Pictures", images);
    verb.whole("--count", "A count", 0, 10, count);
    verb.length("--length", "A length", 1, 1 << 20, length);
    verb.seed("--seed", "A seed", seed);
    verb.number("--rate", "A rate", rate);
    verb.flag("--json", "A switch", json);
    verb.action([this] {
      ran = true;
      return 7;
    });
    line.add_verb("show", "Show.", "idefics show").action([] { return 8; });
    line.add_verb("ask twice", "Ask twice.", "idefics ask twice").action([] { return 9; });
    std::vector<const char*> argv = {"idefics"};
    for (const std::string& w : words) argv.push_back(w.c_str());
    return line.run(static_cast<int>(argv.size()), argv.data());
  }
};

std::string error_of(std::vector<std::string> words) {
  try {
    Example().run(std::move(words));
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kUsage);
    return e.what();
  }
  return "no error";
}

TEST(CommandLine, every_kind_of_option_is_read) {
  Example e;
  EXPECT_EQ(e.run({"ask", "--image", "a.png", "m", "--image=b.png", "-t", "a text", "--choice", "two", "--count", "3",
                   "--length", "4k", "--seed", "18446744073709551615", "--rate", "-1.5e1", "--json", "w"}),
            7);
  EXPECT_TRUE(e.ran);
  EXPECT_EQ(e.model, "m") << "an option that may be repeated takes one value at a time";
  EXPECT_EQ(e.word, "w");
  EXPECT_EQ(e.text, "a text");
  EXPECT_EQ(e.choice, "two");
  EXPECT_EQ(e.images, (std::vector<std::string>{"a.png", "b.png"}));
  EXPECT_EQ(e.count, 3);
  EXPECT_EQ(e.length, 4096);
  EXPECT_EQ(e.seed, UINT64_MAX);
  EXPECT_EQ(e.rate, -15);
  EXPECT_TRUE(e.json);
}

TEST(CommandLine, what_is_not_given_stays_as_it_is) {
  Example e;
  EXPECT_EQ(e.run({"ask", "m"}), 7);
  EXPECT_FALSE(e.word || e.text || e.choice || e.count || e.length || e.seed || e.rate || e.json);
  EXPECT_TRUE(e.images.empty());
}

TEST(CommandLine, values_may_look_like_verbs_options_and_nothing) {
  Example e;
  e.run({"ask", "show", "-t", "show"});
  EXPECT_EQ(e.model, "show");
  EXPECT_EQ(e.text, "show");
  Example dash;
  dash.run({"ask", "-", "-t", "--json", "--image", "-"});
  EXPECT_EQ(dash.model, "-");
  EXPECT_EQ(dash.text, "--json");
  EXPECT_FALSE(dash.json);
  EXPECT_EQ(dash.images, std::vector<std::string>{"-"});
  Example empty;
  empty.run({"ask", "m", "-t", "", "--", "-w"});
  EXPECT_EQ(empty.text, "");
  EXPECT_EQ(empty.word, "-w");
  Example brackets;
  brackets.run({"ask", "m", "[1, 2]", "-t", "[a,b]", "--image", "[c,d]"});
  EXPECT_EQ(brackets.word, "[1, 2]");
  EXPECT_EQ(brackets.text, "[a,b]");
  EXPECT_EQ(brackets.images, std::vector<std::string>{"[c,d]"});
}

TEST(CommandLine, the_last_of_two_values_counts) {
  Example e;
  e.run({"ask", "m", "--count", "1", "--count", "2"});
  EXPECT_EQ(e.count, 2);
}

TEST(CommandLine, values_out_of_range_are_refused_with_what_is_wanted) {
  EXPECT_EQ(error_of({"ask", "m", "--count", "11"}), "--count is \"11\", wanted a whole number from 0 to 10");
  EXPECT_EQ(error_of({"ask", "m", "--count", "1.5"}), "--count is \"1.5\", wanted a whole number from 0 to 10");
  EXPECT_EQ(error_of({"ask", "m", "--count", ""}), "--count is \"\", wanted a whole number from 0 to 10");
  EXPECT_EQ(error_of({"ask", "m", "--choice", "three"}), "--choice is \"three\", wanted one of one, two");
  EXPECT_EQ(error_of({"ask", "m", "--rate", "inf"}), "--rate is \"inf\", wanted a number");
  EXPECT_EQ(error_of({"ask", "m", "--length", "9999999999999999k"}),
            "--length is \"9999999999999999k\", wanted a number from 1 to 1048576, or the like of 4k");
  EXPECT_EQ(error_of({"ask", "m", "--seed", "-1"}), "--seed is \"-1\", wanted a whole number from 0 to 2^64 - 1");
}

TEST(CommandLine, unknown_words_bring_the_nearest_known_one) {
  EXPECT_EQ(error_of({"aks", "m"}), "there is no verb \"aks\": did you mean ask? idefics --help lists them");
  EXPECT_EQ(error_of({"ask", "--txet", "x", "m"}),
            "ask has no option --txet: did you mean --text? see idefics ask --help");
  EXPECT_EQ(error_of({"ask", "--sed=3"}), "ask has no option --sed: did you mean --seed? see idefics ask --help")
      << "although MODEL is missing too";
  EXPECT_EQ(error_of({"ask", "m", "w", "x"}),
            "ask: \"x\" is one word too many; texts with blanks need quotes (idefics ask --help)");
  EXPECT_EQ(error_of({}), "no verb was given, wanted one of ask, show, ask twice; see idefics --help");
}

TEST(CommandLine, the_environment_sets_options_of_the_chosen_verb_only) {
  ::setenv("IDEFICS_COUNT", "5", 1);
  ::setenv("IDEFICS_JSON", "yes", 1);
  Example e;
  e.run({"ask", "m", "--rate", "1"});
  EXPECT_EQ(e.count, 5);
  EXPECT_TRUE(e.json);
  ::setenv("IDEFICS_COUNT", "many", 1);
  EXPECT_EQ(error_of({"ask", "m"}), "IDEFICS_COUNT is \"many\", wanted a whole number from 0 to 10");
  EXPECT_EQ(Example().run({"show"}), 8);
  ::unsetenv("IDEFICS_COUNT");
  ::unsetenv("IDEFICS_JSON");
}

TEST(ParseLength, knows_k_and_m) {
  EXPECT_EQ(parse_length("4096"), 4096);
  EXPECT_EQ(parse_length("8K"), 8192);
  EXPECT_EQ(parse_length("1m"), 1 << 20);
  EXPECT_EQ(parse_length("2G"), int64_t{2} << 30);
  EXPECT_EQ(parse_length("k"), std::nullopt);
  EXPECT_EQ(parse_length("4kk"), std::nullopt);
  EXPECT_EQ(parse_length("99999999999999999k"), std::nullopt);
}

// ---- The tree of the real program, and what is written from it ------------------------------------------------------

CommandTree real_tree() {
  CommandLine line("idefics", "1.2.3", "A summary.");
  add_all_verbs(line);
  return line.tree();
}

const VerbInfo& verb_named(const CommandTree& tree, const std::string& name) {
  for (const VerbInfo& verb : tree.verbs) {
    if (verb.name == name) return verb;
  }
  throw std::out_of_range(name);
}

TEST(CommandLine, a_verb_of_two_words_goes_before_an_argument) {
  EXPECT_EQ(Example().run({"ask", "twice"}), 9);
  Example e;
  EXPECT_EQ(e.run({"ask", "./twice", "twice"}), 7);
  EXPECT_EQ(e.model, "./twice");
  EXPECT_EQ(e.word, "twice");
  EXPECT_EQ(error_of({"ask", "twice", "--text", "x"}),
            "ask twice has no option --text: did you mean --help? see idefics ask twice --help");
  EXPECT_EQ(error_of({"twice"}), "there is no verb \"twice\": idefics --help lists them");
}

TEST(CommandTree, holds_what_was_described) {
  const CommandTree tree = real_tree();
  EXPECT_EQ(tree.verbs.size(), 13u);
  const VerbInfo& generate = verb_named(tree, "generate");
  ASSERT_EQ(generate.arguments.size(), 1u);
  EXPECT_EQ(generate.arguments[0].name, "MODEL");
  EXPECT_TRUE(generate.arguments[0].required);
  const OptionInfo& prompt = generate.options.at(0);
  EXPECT_EQ(prompt.names, (std::vector<std::string>{"-p", "--prompt"}));
  EXPECT_EQ(prompt.value, "TEXT");
  EXPECT_EQ(prompt.variable, "IDEFICS_PROMPT");
  EXPECT_FALSE(prompt.repeatable);
  EXPECT_TRUE(generate.options.at(1).repeatable);
  EXPECT_TRUE(generate.options.at(1).takes_file());
  EXPECT_EQ(generate.options.back().names.back(), "--help");
  EXPECT_EQ(usage(generate), "generate MODEL [options]");
  EXPECT_EQ(usage(verb_named(tree, "tokenize")), "tokenize MODEL [TEXT] [options]");
  EXPECT_EQ(usage(verb_named(tree, "man")), "man");
}

TEST(CommandTree, every_verb_and_option_is_explained_once_in_every_text) {
  const CommandTree tree = real_tree();
  const std::string texts[] = {bash_completion(tree), zsh_completion(tree), fish_completion(tree), man_page(tree)};
  for (const VerbInfo& verb : tree.verbs) {
    EXPECT_FALSE(verb.summary.empty() || verb.example.empty()) << verb.name;
    EXPECT_NE(help_text(tree).find("  " + verb.name + " "), std::string::npos);
    const std::string help = help_text(tree, verb);
    for (const OptionInfo& option : verb.options) {
      EXPECT_FALSE(option.help.empty()) << verb.name << option.names.front();
      EXPECT_EQ(option.variable.empty(), option.group == "Help") << option.names.front();
      EXPECT_NE(option.variable, "IDEFICS_KERNELS") << "that one chooses the CPU level";
      EXPECT_NE(help.find(option.names.back()), std::string::npos);
    }
    for (const std::string& text : texts) EXPECT_NE(text.find(verb.name), std::string::npos) << verb.name;
  }
}

TEST(HelpText, lines_are_at_most_100_wide_but_for_examples) {
  const CommandTree tree = real_tree();
  for (const VerbInfo& verb : tree.verbs) {
    const std::string help = help_text(tree, verb);
    const std::string body = help.substr(0, help.find("\nExample:"));
    for (size_t start = 0; start < body.size();) {
      const size_t end = std::min(body.find('\n', start), body.size());
      EXPECT_LE(end - start, 100u) << body.substr(start, end - start);
      start = end + 1;
    }
  }
}

TEST(Completion, help_with_quotes_and_brackets_stays_inside_its_quotes) {
  CommandTree tree{"idefics", "1", "S", {}, {}};
  tree.verbs.push_back({"ask", "It's", "", "x", {}, {{{"--a"}, "", "It's [a]: b\\c", "", "Options", false}}});
  EXPECT_NE(zsh_completion(tree).find(R"('--a[It'\''s \[a\]\: b\\c]')"), std::string::npos) << zsh_completion(tree);
  EXPECT_NE(fish_completion(tree).find(R"(-l a -d 'It'\''s [a]: b)"), std::string::npos) << fish_completion(tree);
}

TEST(ManPage, text_that_troff_would_take_for_itself_is_escaped) {
  CommandTree tree{"idefics", "1", "S", {}, {}};
  tree.verbs.push_back({"ask", ".dot and \\ and -", "", "x", {}, {}});
  EXPECT_NE(man_page(tree).find("\n\\&.dot and \\e and \\-\n"), std::string::npos) << man_page(tree);
}

}  // namespace
}  // namespace idefics::cli
