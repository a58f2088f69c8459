// The command line: verbs with their options, described once. CLI11 parses it; help, completions and the manual page
// are walked from its option tree (command_tree.h).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cli/command_tree.h"

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace idefics::cli {

// Describes one verb. Every option "--max-tokens" can also be set by the environment variable IDEFICS_MAX_TOKENS; the
// command line wins. An option that is given twice has its last value, but for `texts`.
// The references must live until the verb runs. They are written when this verb was chosen, and only for options that
// were given; Error{kUsage} names the option, what it was given, and what it wants.
class Verb {
 public:
  explicit Verb(CLI::App& app) : app_(app) {}

  // A word that must be there, or may.
  void argument(const std::string& name, const std::string& help, std::string& value);
  void argument(const std::string& name, const std::string& help, std::optional<std::string>& value);

  // The heading of the options that follow.
  void group(const std::string& heading) { group_ = heading; }
  // `names`: "-p,--prompt"; `what`: how the value is called, "TEXT", "FILE", "DIR", or its choices "auto|f32|bf16".
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

  // What the verb does. Returns the exit code.
  void action(std::function<int()> run) { run_ = std::move(run); }

  CLI::App& app() { return app_; }
  int run();

 private:
  CLI::Option* add(const std::string& names, const std::string& what, const std::string& help);

  CLI::App& app_;
  std::string group_ = "Options";
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

  // Parses and runs the verb. Returns the exit code. Errors: Error{kUsage}, and those of the verb.
  int run(int argc, const char* const* argv);

 private:
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
