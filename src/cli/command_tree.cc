#include "cli/command_tree.h"

#include <fmt/format.h>

#include <algorithm>

namespace idefics::cli {

namespace {

// "-p, --prompt TEXT".
std::string signature(const OptionInfo& option) {
  std::string out = fmt::format("{}", fmt::join(option.names, ", "));
  if (!option.value.empty()) out += " " + option.value;
  return out;
}

constexpr size_t kHelpColumn = 30, kWidth = 100;

// `text` broken at blanks, each line `indent` wide at its left, the first line's indent left out.
std::string wrap(const std::string& text, size_t indent) {
  std::string out;
  size_t column = indent;
  for (size_t start = 0; start < text.size();) {
    const size_t end = std::min(text.find(' ', start), text.size());
    if (column > indent && column + 1 + end - start > kWidth) {
      out += "\n" + std::string(indent, ' ');
      column = indent;
    } else if (column > indent) {
      out += ' ';
      ++column;
    }
    out.append(text, start, end - start);
    column += end - start;
    start = end + 1;
  }
  return out + "\n";
}

// "  left      text", the text wrapped behind its column.
std::string entry(const std::string& left, const std::string& text) {
  const bool fits = left.size() + 4 <= kHelpColumn;
  const std::string gap = fits ? std::string(kHelpColumn - 2 - left.size(), ' ') : "\n" + std::string(kHelpColumn, ' ');
  return "  " + left + gap + wrap(text, kHelpColumn);
}

std::string option_entries(const std::vector<OptionInfo>& options) {
  std::string out;
  for (const auto& [heading, members] : by_group(options)) {
    out += fmt::format("\n{}:\n", heading);
    for (const OptionInfo& option : members)
      out += entry(signature(option), option.help + (option.repeatable ? " (may be repeated)" : ""));
  }
  return out;
}

}  // namespace

std::vector<std::string> split_choices(const std::string& value) {
  std::vector<std::string> out;
  if (value.find('|') == std::string::npos) return out;
  for (size_t start = 0; start <= value.size();) {
    const size_t end = std::min(value.find('|', start), value.size());
    out.push_back(value.substr(start, end - start));
    start = end + 1;
  }
  return out;
}

std::vector<std::string> OptionInfo::choices() const { return split_choices(value); }
std::vector<std::string> ArgumentInfo::choices() const { return split_choices(name); }

std::string usage(const VerbInfo& verb) {
  std::string out = verb.name;
  for (const ArgumentInfo& argument : verb.arguments)
    out += fmt::format(fmt::runtime(argument.required ? " {}" : " [{}]"), argument.name);
  const bool has_options =
      std::any_of(verb.options.begin(), verb.options.end(), [](const OptionInfo& o) { return o.group != "Help"; });
  return has_options ? out + " [options]" : out;
}

std::vector<std::pair<std::string, std::vector<OptionInfo>>> by_group(const std::vector<OptionInfo>& options) {
  std::vector<std::pair<std::string, std::vector<OptionInfo>>> groups;
  for (const OptionInfo& option : options) {
    auto group = std::find_if(groups.begin(), groups.end(), [&](const auto& g) { return g.first == option.group; });
    if (group == groups.end()) group = groups.insert(groups.end(), {option.group, {}});
    group->second.push_back(option);
  }
  return groups;
}

std::string help_text(const CommandTree& tree) {
  std::string out = fmt::format("{}\n\nUsage: {} VERB ...\n\nVerbs:\n", tree.summary, tree.name);
  for (const VerbInfo& verb : tree.verbs) out += entry(verb.name, verb.summary);
  out += option_entries(tree.options);
  return out + fmt::format("\n\"{} VERB --help\" tells more of a verb.\n", tree.name);
}

std::string help_text(const CommandTree& tree, const VerbInfo& verb) {
  std::string out = fmt::format("{}\n\nUsage: {} {}\n", verb.summary, tree.name, usage(verb));
  if (!verb.details.empty()) out += "\n" + wrap(verb.details, 0);
  if (!verb.arguments.empty()) out += "\nArguments:\n";
  for (const ArgumentInfo& argument : verb.arguments) out += entry(argument.name, argument.help);
  out += option_entries(verb.options);
  return out + fmt::format("\nExample:\n  {}\n", verb.example);
}

}  // namespace idefics::cli
