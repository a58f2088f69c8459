// The command line as data, for everything that describes it: help, completions, the man page.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace idefics::cli {

// "a|b" -> "a", "b"; empty when there is no bar: the value is free.
std::vector<std::string> split_choices(const std::string& value);

struct OptionInfo {
  std::vector<std::string> names;  // "-p", "--prompt"
  std::string value;               // what stands behind it: "TEXT", "auto|f32|bf16"; empty for a switch
  std::string help;
  std::string variable;  // of the environment; empty: none
  std::string group;     // its heading
  bool repeatable = false;

  std::vector<std::string> choices() const;
  bool takes_file() const { return value == "FILE"; }
  bool takes_folder() const { return value == "DIR"; }
};

struct ArgumentInfo {
  std::string name;  // "MODEL", "bash|zsh|fish"
  std::string help;
  bool required = true;
  std::vector<std::string> choices() const;
};

struct VerbInfo {
  std::string name, summary;
  std::string details;  // a paragraph; may be empty
  std::string example;  // one or more command lines
  std::vector<ArgumentInfo> arguments;
  std::vector<OptionInfo> options;
};

struct CommandTree {
  std::string name, version, summary;
  std::vector<OptionInfo> options;
  std::vector<VerbInfo> verbs;
};

// "generate MODEL [options]": how a verb is called, without the program's name.
std::string usage(const VerbInfo& verb);
// The options under their headings, in the order in which the headings appear first.
std::vector<std::pair<std::string, std::vector<OptionInfo>>> by_group(const std::vector<OptionInfo>& options);

// The text of --help for the program and for a verb.
std::string help_text(const CommandTree& tree);
std::string help_text(const CommandTree& tree, const VerbInfo& verb);

// The scripts of `idefics completion`.
std::string bash_completion(const CommandTree& tree);
std::string zsh_completion(const CommandTree& tree);
std::string fish_completion(const CommandTree& tree);

// The manual page, in the man macros of troff.
std::string man_page(const CommandTree& tree);

}  // namespace idefics::cli
