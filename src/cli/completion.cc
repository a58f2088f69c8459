// idefics completion: scripts that let a shell complete the command line.
#include <fmt/format.h>

#include <memory>

#include "cli/terminal.h"
#include "cli/verbs.h"

namespace idefics::cli {

namespace {

std::string words(const std::vector<std::string>& list) { return fmt::format("{}", fmt::join(list, " ")); }

// "bench serve": "bench" above, "serve" below; of a verb of one word the one below is empty.
std::string word_above(const VerbInfo& verb) { return verb.name.substr(0, verb.name.find(' ')); }
std::string word_below(const VerbInfo& verb) {
  const size_t blank = verb.name.find(' ');
  return blank == std::string::npos ? "" : verb.name.substr(blank + 1);
}

// The verbs that can stand first.
std::vector<std::string> verb_names(const CommandTree& tree) {
  std::vector<std::string> names;
  for (const VerbInfo& verb : tree.verbs) {
    if (word_below(verb).empty()) names.push_back(verb.name);
  }
  return names;
}

// The verbs of two words, as patterns of bash and zsh: "bench serve"|"..."
std::string nested_names(const CommandTree& tree) {
  std::vector<std::string> names;
  for (const VerbInfo& verb : tree.verbs) {
    if (!word_below(verb).empty()) names.push_back('"' + verb.name + '"');
  }
  return fmt::format("{}", fmt::join(names, "|"));
}

std::vector<std::string> option_names(const std::vector<OptionInfo>& options) {
  std::vector<std::string> names;
  for (const OptionInfo& option : options) names.insert(names.end(), option.names.begin(), option.names.end());
  return names;
}

std::string quote(std::string_view text) {
  std::string out = "'";
  for (const char c : text) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

// ---- bash ----------------------------------------------------------------------------------------------------------

// What comes behind an option that takes a value.
std::string bash_value(const OptionInfo& option) {
  if (!option.choices().empty()) return fmt::format("_idefics_words \"{}\"", words(option.choices()));
  return option.takes_file() ? "_idefics_files" : option.takes_folder() ? "_idefics_folders" : ":";
}

std::string bash_values(const VerbInfo& verb) {
  std::string out;
  for (const OptionInfo& option : verb.options) {
    if (option.value.empty()) continue;
    std::string pattern;
    for (const std::string& name : option.names)
      pattern += fmt::format("{}\"{} {}\"", pattern.empty() ? "" : "|", verb.name, name);
    out += fmt::format("    {}) {}; return ;;\n", pattern, bash_value(option));
  }
  return out;
}

std::string bash_arguments(const VerbInfo& verb) {
  std::string out;
  for (const ArgumentInfo& argument : verb.arguments) {
    if (!argument.choices().empty())
      out += fmt::format("    \"{}\") _idefics_words \"{}\"; return ;;\n", verb.name, words(argument.choices()));
  }
  return out;
}

// What may stand behind a verb besides files.
std::string bash_below(const CommandTree& tree) {
  std::string out;
  for (const VerbInfo& verb : tree.verbs) {
    if (word_below(verb).empty()) continue;
    out += fmt::format("    \"{} 2\") COMPREPLY+=($(compgen -W \"{}\" -- \"$current\")) ;;\n", word_above(verb),
                       word_below(verb));
  }
  return out;
}

// ---- zsh -----------------------------------------------------------------------------------------------------------

// Help stands in brackets, and colons part the fields.
std::string zsh_help(const OptionInfo& option) {
  std::string out = "[";
  for (const char c : option.help) {
    if (c == '[' || c == ']' || c == ':' || c == '\\') out += '\\';
    out += c;
  }
  return out + "]";
}

std::string zsh_value(const OptionInfo& option) {
  if (option.value.empty()) return "";
  if (!option.choices().empty()) return fmt::format(":value:({})", words(option.choices()));
  return fmt::format(":{}:{}", option.value, option.takes_file() ? "_files" : option.takes_folder() ? "_files -/" : "");
}

std::string zsh_option(const OptionInfo& option) {
  const std::string rest = zsh_help(option) + zsh_value(option), star = option.repeatable ? "*" : "";
  if (option.names.size() == 1) return quote(star + option.names.front() + rest);
  const std::string exclusive = option.repeatable ? star : fmt::format("({})", words(option.names));
  return fmt::format("{}{{{}}}{}", quote(exclusive), fmt::join(option.names, ","), quote(rest));
}

std::string zsh_argument(const ArgumentInfo& argument) {
  if (!argument.choices().empty()) return fmt::format("':value:({})'", words(argument.choices()));
  const std::string action = argument.name == "MODEL" ? "_files -/" : argument.name == "IMAGE" ? "_files" : "";
  return quote(fmt::format("{}:{}:{}", argument.required ? "" : ":", argument.name, action));
}

// ---- fish ----------------------------------------------------------------------------------------------------------

std::string fish_option(const OptionInfo& option) {
  std::string out;
  for (const std::string& name : option.names)
    out += name.starts_with("--") ? " -l " + name.substr(2) : " -s " + name.substr(1);
  if (!option.choices().empty()) {
    out += fmt::format(" -x -a '{}'", words(option.choices()));
  } else if (option.takes_file()) {
    out += " -r -F";
  } else if (option.takes_folder()) {
    out += " -x -a '(__fish_complete_directories)'";
  } else if (!option.value.empty()) {
    out += " -x";
  }
  return out + " -d " + quote(option.help);
}

}  // namespace

std::string bash_completion(const CommandTree& tree) {
  std::string values, options, arguments;
  for (const VerbInfo& verb : tree.verbs) {
    values += bash_values(verb);
    options += fmt::format("    \"{}\") _idefics_words \"{}\" ;;\n", verb.name, words(option_names(verb.options)));
    arguments += bash_arguments(verb);
  }
  return fmt::format(R"sh(# Bash completion of {0}. Load it with: source <({0} completion bash)
_idefics_words() {{ mapfile -t COMPREPLY < <(compgen -W "$1" -- "${{COMP_WORDS[COMP_CWORD]}}"); }}
_idefics_files() {{ compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "${{COMP_WORDS[COMP_CWORD]}}"); }}
_idefics_folders() {{ compopt -o filenames; mapfile -t COMPREPLY < <(compgen -d -- "${{COMP_WORDS[COMP_CWORD]}}"); }}

_idefics() {{
  local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD - 1]}} verb=${{COMP_WORDS[1]}}
  COMPREPLY=()
  if [[ $COMP_CWORD -eq 1 ]]; then
    _idefics_words "{1} {2}"
    return
  fi
  case "$verb ${{COMP_WORDS[2]}}" in
    {6}) [[ $COMP_CWORD -gt 2 ]] && verb+=" ${{COMP_WORDS[2]}}" ;;
  esac
  case "$verb $previous" in
{3}  esac
  if [[ $current == -* ]]; then
    case "$verb" in
{4}    esac
    return
  fi
  case "$verb" in
{5}  esac
  _idefics_files
  case "$verb $COMP_CWORD" in
{7}  esac
}}
complete -F _idefics {0}
)sh",
                     tree.name, words(verb_names(tree)), words(option_names(tree.options)), values, options, arguments,
                     nested_names(tree), bash_below(tree));
}

std::string zsh_completion(const CommandTree& tree) {
  std::string verbs, cases;
  for (const VerbInfo& verb : tree.verbs) {
    if (word_below(verb).empty()) verbs += fmt::format("    {}\n", quote(verb.name + ":" + verb.summary));
    cases += fmt::format("    \"{}\")\n      _arguments", verb.name);
    for (const ArgumentInfo& argument : verb.arguments) cases += " \\\n        " + zsh_argument(argument);
    for (const OptionInfo& option : verb.options) cases += " \\\n        " + zsh_option(option);
    cases += "\n      ;;\n";
  }
  return fmt::format(R"sh(#compdef {0}
# Zsh completion of {0}. Load it with: source <({0} completion zsh)
_idefics() {{
  local -a verbs
  verbs=(
{1}  )
  if (( CURRENT == 2 )); then
    _describe verb verbs
    _arguments {2}
    return
  fi
  local verb=$words[2]
  shift words
  (( CURRENT-- ))
  case "$verb $words[2]" in
    {4}) if (( CURRENT > 2 )); then verb+=" $words[2]"; shift words; (( CURRENT-- )); fi ;;
  esac
  case $verb in
{3}  esac
}}
# Found in $fpath, this file is itself the function; sourced, it registers it.
if [[ $funcstack[1] == _idefics ]]; then _idefics "$@"; else compdef _idefics {0}; fi
)sh",
                     tree.name, verbs, words(option_names(tree.options)), cases, nested_names(tree));
}

namespace {

// Whether this verb was given and no other.
std::string fish_condition(const CommandTree& tree, const VerbInfo& verb) {
  const std::string above = word_above(verb), below = word_below(verb), seen = "__fish_seen_subcommand_from ";
  if (!below.empty()) return seen + above + "; and " + seen + below;
  std::string out = seen + above;
  for (const VerbInfo& other : tree.verbs) {
    if (word_below(other).empty()) continue;
    if (word_above(other) == above) out += "; and not " + seen + word_below(other);
    if (word_below(other) == above) out += "; and not " + seen + word_above(other);
  }
  return out;
}

}  // namespace

std::string fish_completion(const CommandTree& tree) {
  std::string out = fmt::format("# Fish completion of {0}. Load it with: {0} completion fish | source\n", tree.name);
  for (const OptionInfo& option : tree.options)
    out += fmt::format("complete -c {} -n __fish_use_subcommand{}\n", tree.name, fish_option(option));
  for (const VerbInfo& verb : tree.verbs) {
    const std::string below = word_below(verb);
    const std::string place =
        below.empty() ? "__fish_use_subcommand" : quote("__fish_seen_subcommand_from " + word_above(verb));
    out += fmt::format("# {}\ncomplete -c {} -n {} -f -a {} -d {}\n", verb.name, tree.name, place,
                       below.empty() ? verb.name : below, quote(verb.summary));
  }
  for (const VerbInfo& verb : tree.verbs) {
    const std::string start = fmt::format("complete -c {} -n {}", tree.name, quote(fish_condition(tree, verb)));
    for (const ArgumentInfo& argument : verb.arguments) {
      if (!argument.choices().empty()) out += fmt::format("{} -f -a '{}'\n", start, words(argument.choices()));
    }
    for (const OptionInfo& option : verb.options) out += start + fish_option(option) + "\n";
  }
  return out;
}

void add_completion(CommandLine& line) {
  Verb& verb = line.add_verb("completion", "Print a script that lets a shell complete the command line.",
                             "source <(idefics completion bash)");
  const auto shell = std::make_shared<std::string>();
  verb.argument("bash|zsh|fish", "The shell", *shell);
  verb.action([&line, shell] {
    const CommandTree tree = line.tree();
    print(*shell == "bash" ? bash_completion(tree) : *shell == "zsh" ? zsh_completion(tree) : fish_completion(tree));
    return 0;
  });
}

}  // namespace idefics::cli
