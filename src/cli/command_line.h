// The command line: verbs with their options, described once. CLI11 parses it; help, completions and the manual page
// are walked from its option tree (command_tree.h).
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cli/command_tree.h"
#include "cli/settings_file.h"

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace idefics::cli {

// Describes one verb. Every option "--max-tokens" can also be set by the environment variable IDEFICS_MAX_TOKENS and,
// for verbs with config_file(), as `max-tokens` in a file; the command line wins over the environment, that over the
// file. An option that is given twice has its last value, but for `texts`.
// The references must live until the verb runs. They are written when this verb was chosen, and only for options that
// were given; Error{kUsage} names the option, what it was given, and what it wants.
class Verb {
 public:
  explicit Verb(CLI::App& app) : app_(app) {}
  Verb(const Verb&) = delete;
  Verb& operator=(const Verb&) = delete;

  // A word that must be there, or may.
  void argument(const std::string& name, const std::string& help, std::string& value);
  void argument(const std::string& name, const std::string& help, std::optional<std::string>& value);

  // The heading of the options that follow.
  void group(const std::string& heading) { group_ = heading; }
  // `names`: "-p,--prompt"; `what`: how the value is called, "TEXT", "FILE", "DIR", or its choices "auto|f32|bf16".
  // "KEY" is a secret: a file of settings that holds one must be out of the reach of others.
  void text(const std::string& names, const std::string& what, const std::string& help,
            std::optional<std::string>& value);
  void required_text(const std::string& names, const std::string& what, const std::string& help, std::string& value);
  void texts(const std::string& names, const std::string& what, const std::string& help,
             std::vector<std::string>& values);
  // A whole number from `min` to `max`.
  void whole(const std::string& names, const std::string& help, int min, int max, std::optional<int>& value);
  // The same, where "4k" stands for 4 * 1024.
  void length(const std::string& names, const std::string& help, int min, int max, std::optional<int>& value);
  void bytes(const std::string& names, const std::string& help, std::optional<int64_t>& value);
  void seed(const std::string& names, const std::string& help, std::optional<uint64_t>& value);
  void number(const std::string& names, const std::string& help, std::optional<double>& value);
  void flag(const std::string& names, const std::string& help, bool& value);

  // "--config FILE": a TOML file with values of the other options under their names without dashes, and of the
  // arguments under theirs in lower case.
  void config_file();

  // What the verb does. Returns the exit code.
  void action(std::function<int()> run) { run_ = std::move(run); }

  CLI::App& app() { return app_; }
  VerbInfo describe() const;
  // Reads the values of everything that was described, without running the verb.
  void read();
  // What read() found for an option ("--max-tokens"), as text.
  std::vector<std::string> values(const std::string& name) const;
  int run();

 private:
  enum class Kind { kText, kTexts, kWhole, kLength, kNumber, kSwitch };
  // What an option was given, and how to call that in a complaint.
  struct Given {
    std::vector<std::string> values;
    std::string name;

    bool empty() const { return values.empty(); }
    const std::string& last() const { return values.back(); }
    [[noreturn]] void refuse(std::string_view wanted) const;
  };
  struct Range {
    std::optional<int64_t> (*parse)(std::string_view text);
    int min, max;
    std::string wanted;  // for the complaint
  };

  CLI::Option* add(const std::string& names, const std::string& what, const std::string& help, Kind kind);
  CLI::Option* add_argument(const std::string& name, const std::string& help, bool required);
  void number(const std::string& names, const std::string& help, Kind kind, const Range& range,
              std::optional<int>& value);
  Given given(const CLI::Option* option) const;
  void read_config();
  void take(const Setting& setting, const std::string& path);

  CLI::App& app_;
  std::string group_ = "Options";
  std::map<std::string, std::pair<const CLI::Option*, Kind>> keys_;  // of the file
  std::map<const CLI::Option*, Given> from_file_;
  std::vector<const CLI::Option*> required_;
  const CLI::Option* config_ = nullptr;
  std::vector<std::function<void()>> readers_;
  std::function<int()> run_;
};

class CommandLine {
 public:
  CommandLine(const std::string& name, const std::string& version, const std::string& summary);
  ~CommandLine();

  // `name`: a word, or two ("bench serve").
  // `details`: a further paragraph, may be empty. `example`: command lines.
  Verb& add_verb(const std::string& name, const std::string& summary, const std::string& example,
                 const std::string& details = "");
  // Everything that was described, by a walk over CLI11's options.
  CommandTree tree() const;

  // The chosen verb, whose values have not been read; null when help or the version was asked for, which is printed.
  // Errors: kUsage.
  Verb* parse(int argc, const char* const* argv);
  // Parses and runs the verb. Returns the exit code. Errors: Error{kUsage}, and those of the verb.
  int run(int argc, const char* const* argv);

 private:
  Verb* chosen() const;  // null before one was

  std::string version_;
  std::unique_ptr<CLI::App> app_;
  std::vector<std::unique_ptr<Verb>> verbs_;
};

// How option values are read; nothing when the text is not one.
std::optional<int64_t> parse_whole(std::string_view text);
std::optional<int64_t> parse_length(std::string_view text);  // "4096", "4k", "4K", "1m", "2G"
std::optional<double> parse_number(std::string_view text);   // finite
std::optional<bool> parse_switch(std::string_view text);

}  // namespace idefics::cli
