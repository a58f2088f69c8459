#include "cli/command_line.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cctype>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "cli/verbs.h"
#include "idefics/error.h"

namespace idefics::cli {
namespace {

// A command line with a verb that has one of each kind of option.
struct Example {
  std::string model;
  std::optional<std::string> word, text, choice;
  std::vector<std::string> images, keys;
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
    verb.texts("--api-key", "KEY", "A secret", keys);
    verb.config_file();
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

// ---- The file of settings

// A file in a folder of its own, with this mode.
class SettingsFile {
 public:
  explicit SettingsFile(const std::string& text, mode_t mode = 0644) {
    char name[] = "/tmp/idefics-settings-XXXXXX";
    folder_ = ::mkdtemp(name);
    std::ofstream(path()) << text;
    ::chmod(path().c_str(), mode);
  }
  SettingsFile(const SettingsFile&) = delete;
  SettingsFile& operator=(const SettingsFile&) = delete;
  ~SettingsFile() { std::filesystem::remove_all(folder_); }
  std::string path() const { return folder_ + "/ask.toml"; }

 private:
  std::string folder_;
};

// The error behind the file's folder.
std::string error_of_file(const std::string& text, mode_t mode = 0644, std::vector<std::string> more = {"m"}) {
  const SettingsFile file(text, mode);
  std::vector<std::string> words = {"ask", "--config", file.path()};
  words.insert(words.end(), more.begin(), more.end());
  const std::string error = error_of(words);
  const size_t name = error.find("ask.toml");
  return name == std::string::npos ? error : error.substr(name);
}

TEST(ConfigFile, sets_every_kind_of_option_and_the_arguments) {
  const SettingsFile file(R"(# A comment.
model = "m"           # the argument MODEL
text = 'C:\x "#1"'
choice = "two"
image = ["a.png",
         "b.png"]
count = 3
length = "4k"
seed = 9223372036854775807
rate = -1.5e1
json = true
api-key = "secret"
)",
                          0600);
  Example e;
  EXPECT_EQ(e.run({"ask", "--config", file.path()}), 7);
  EXPECT_EQ(e.model, "m");
  EXPECT_EQ(e.text, "C:\\x \"#1\"");
  EXPECT_EQ(e.choice, "two");
  EXPECT_EQ(e.images, (std::vector<std::string>{"a.png", "b.png"}));
  EXPECT_EQ(e.count, 3);
  EXPECT_EQ(e.length, 4096);
  EXPECT_EQ(e.seed, uint64_t{INT64_MAX});
  EXPECT_EQ(e.rate, -15);
  EXPECT_TRUE(e.json);
  EXPECT_EQ(e.keys, std::vector<std::string>{"secret"});
}

TEST(ConfigFile, gives_way_to_the_environment_and_that_to_the_command_line) {
  const SettingsFile file("model = 'file'\ncount = 1\nlength = 1\njson = true\nimage = ['file']\n");
  ::setenv("IDEFICS_COUNT", "2", 1);
  ::setenv("IDEFICS_LENGTH", "2", 1);
  ::setenv("IDEFICS_CONFIG", file.path().c_str(), 1);
  Example e;
  e.run({"ask", "line", "--count", "3", "--json=false", "--image", "line"});
  EXPECT_EQ(e.model, "line");
  EXPECT_EQ(e.count, 3);
  EXPECT_EQ(e.length, 2);
  EXPECT_FALSE(e.json);
  EXPECT_EQ(e.images, std::vector<std::string>{"line"}) << "lists are not put together";
  ::unsetenv("IDEFICS_COUNT");
  ::unsetenv("IDEFICS_LENGTH");
  ::unsetenv("IDEFICS_CONFIG");
}

TEST(ConfigFile, is_refused_with_the_line_and_the_key) {
  EXPECT_EQ(error_of_file("count = 1\ncuont = 2\n"),
            "ask.toml:2: there is no setting \"cuont\": did you mean count? see idefics ask --help");
  EXPECT_EQ(error_of_file("xyzzy = 2"), "ask.toml:1: there is no setting \"xyzzy\": see idefics ask --help");
  EXPECT_EQ(error_of_file("config = 'x'"), "ask.toml:1: there is no setting \"config\": see idefics ask --help");
  EXPECT_EQ(error_of_file("\n[count]\nx = 1"), "ask.toml:2: count is a table, wanted a whole number");
  EXPECT_EQ(error_of_file("count = \"3\""), "ask.toml:1: count is a text, wanted a whole number");
  EXPECT_EQ(error_of_file("count = 1.5"), "ask.toml:1: count is a number, wanted a whole number");
  EXPECT_EQ(error_of_file("count = 11"), "ask.toml:1: count is \"11\", wanted a whole number from 0 to 10");
  EXPECT_EQ(error_of_file("length = '4x'"),
            "ask.toml:1: length is \"4x\", wanted a number from 1 to 1048576, or the like of 4k");
  EXPECT_EQ(error_of_file("length = true"),
            "ask.toml:1: length is a switch, wanted a whole number, or the like of \"4k\"");
  EXPECT_EQ(error_of_file("json = 1"), "ask.toml:1: json is a whole number, wanted true or false");
  EXPECT_EQ(error_of_file("text = 1"), "ask.toml:1: text is a whole number, wanted a text in quotes");
  EXPECT_EQ(error_of_file("text = ['a']"), "ask.toml:1: text is a list of texts, wanted a text in quotes");
  EXPECT_EQ(error_of_file("image = ['a', 1]"),
            "ask.toml:1: image is a list, wanted a text in quotes, or a list of such");
  EXPECT_EQ(error_of_file("image = []"), "ask.toml:1: image is a list, wanted a text in quotes, or a list of such");
  EXPECT_EQ(error_of_file("rate = inf"), "ask.toml:1: rate is \"inf\", wanted a number");
  EXPECT_EQ(error_of_file("rate = 1979-05-27"), "ask.toml:1: rate is a date or a time, wanted a number");
  EXPECT_EQ(error_of_file("choice = 'three'"), "ask.toml:1: choice is \"three\", wanted one of one, two");
  EXPECT_EQ(error_of_file("count = 1", 0644, {}), "ask: MODEL is required; see idefics ask --help");
}

TEST(ConfigFile, that_is_no_toml_is_refused_with_the_line) {
  for (const std::string text : {"count = 1\ncount = 2\n", "count = 1\ncount 2\n", "count = 1\ntext = 'open\n",
                                 "count = 1\ntext = a\n", "count = 1\n\xff = 1\n"}) {
    const std::string error = error_of_file(text);
    EXPECT_TRUE(error.starts_with("ask.toml:2: ") || error.starts_with("ask.toml:3: ")) << error;
    EXPECT_EQ(error.find('\n'), std::string::npos) << error;
  }
  EXPECT_NE(error_of_file(std::string(100'000, '[')), "no error") << "depth has a limit";
  EXPECT_NE(error_of({"ask", "m", "--config", "/no/such/file"}).find("/no/such/file"), std::string::npos);
  EXPECT_NE(error_of({"ask", "m", "--config", "/tmp"}).find("/tmp"), std::string::npos);
}

TEST(ConfigFile, holds_other_than_ascii_in_texts_and_comments_only) {
  const std::string outside = "ask.toml:2: has other than ASCII outside of quotes";
  const SettingsFile good(
      "model = \"m\" # \u00e0\ntext = \"\"\"\\\"\u00e0\n\u00e0\"\"\"\"\" # \u00e0\nchoice = 'two'\nimage = ['\u00e0', "
      "'''\u00e0\n''']\n");
  Example e;
  EXPECT_EQ(e.run({"ask", "--config", good.path()}), 7);
  EXPECT_EQ(e.text, "\"\u00e0\n\u00e0\"\"");
  EXPECT_EQ(e.images, (std::vector<std::string>{"\u00e0", "\u00e0\n"}));
  EXPECT_EQ(error_of_file("\n\u00e0 = 1"), outside);
  EXPECT_EQ(error_of_file("text = \"a\"\ncount = \u00e0"), outside);
  EXPECT_EQ(error_of_file("text = \"\"\n[\u00e0"), outside);
}

TEST(ConfigFile, with_a_key_is_out_of_the_reach_of_others) {
  EXPECT_EQ(error_of_file("api-key = 'k'", 0644),
            "ask.toml: holds api-key and has mode 0644, with which others may read it; chmod 600 it");
  EXPECT_EQ(error_of_file("api-key = 'k'", 0602),
            "ask.toml: holds api-key and has mode 0602, with which others may change it; chmod 600 it");
  EXPECT_EQ(error_of_file("api-key = 'k'", 0660),
            "ask.toml: holds api-key and has mode 0660, with which others may change it; chmod 600 it");
  EXPECT_EQ(error_of_file("api-key = 'k'", 0640), "no error") << "a service's group may read it";
  EXPECT_EQ(error_of_file("count = 1", 0644), "no error") << "no key, no secret";
  EXPECT_EQ(error_of_file("api-key = 12345678", 0600),
            "ask.toml:1: api-key is a whole number, wanted a text in quotes, or a list of such");
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

// The words behind the verb that must be there.
std::vector<std::string> required_words(const VerbInfo& verb) {
  std::vector<std::string> words = {verb.name};
  for (const ArgumentInfo& argument : verb.arguments) {
    if (argument.required) words.push_back(argument.choices().empty() ? "x" : argument.choices().front());
  }
  return words;
}

TEST(CommandTree, every_option_of_every_verb_is_read_from_its_variable) {
  int count = 0;
  for (const VerbInfo& verb : real_tree().verbs) {
    for (const OptionInfo& option : verb.options) {
      if (option.group == "Help" || option.names.back() == "--config") continue;
      const std::string name = option.names.back();
      std::string variable = "IDEFICS_" + name.substr(2);
      for (char& c : variable) c = c == '-' ? '_' : static_cast<char>(std::toupper(c));
      EXPECT_EQ(option.variable, variable);
      // What no number, switch or choice is; and where it is good, it must have arrived.
      ::setenv(variable.c_str(), "sample-0x", 1);
      CommandLine line("idefics", "1.2.3", "A summary.");
      add_all_verbs(line);
      std::vector<std::string> words = required_words(verb);
      if (verb.name == "render" && name != "--messages") words.insert(words.end(), {"--messages", "x"});
      if (verb.name == "bench serve" && name != "--url") words.insert(words.end(), {"--url", "http://x"});
      std::vector<const char*> argv = {"idefics"};
      for (const std::string& word : words) argv.push_back(word.c_str());
      Verb* chosen = line.parse(static_cast<int>(argv.size()), argv.data());
      ASSERT_NE(chosen, nullptr);
      EXPECT_EQ(chosen->values(name), std::vector<std::string>{"sample-0x"}) << verb.name << " " << name;
      const bool number = option.value == "N" || option.value == "X" || option.value == "BYTES";
      const bool free_text = option.repeatable || (!option.value.empty() && option.choices().empty() && !number);
      try {
        chosen->read();
        EXPECT_TRUE(free_text) << verb.name << " " << name;
      } catch (const Error& e) {
        EXPECT_FALSE(free_text) << e.what();
        EXPECT_TRUE(std::string(e.what()).starts_with(variable + " is \"sample-0x\", wanted ")) << e.what();
      }
      ::unsetenv(variable.c_str());
      ++count;
    }
  }
  EXPECT_GT(count, 100);
}

TEST(CommandTree, sizes_and_counts_take_units) {
  for (const auto& [verb, name] : std::vector<std::pair<std::string, std::string>>{{"serve", "--kv-memory"},
                                                                                   {"serve", "--max-num-seqs"},
                                                                                   {"serve", "--max-queue"},
                                                                                   {"serve", "--max-connections"},
                                                                                   {"serve", "--max-body-size"},
                                                                                   {"serve", "--max-model-len"},
                                                                                   {"generate", "--max-model-len"},
                                                                                   {"generate", "--max-tokens"},
                                                                                   {"generate", "--min-tokens"},
                                                                                   {"generate", "--longest-edge"},
                                                                                   {"bench", "--max-tokens"}}) {
    CommandLine line("idefics", "1.2.3", "A summary.");
    add_all_verbs(line);
    const char* argv[] = {"idefics", verb.c_str(), "model", name.c_str(), "2k"};
    Verb* chosen = line.parse(5, argv);
    EXPECT_NO_THROW(chosen->read()) << name;
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
