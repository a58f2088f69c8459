#include "cli/command_line.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>

#include "cli/suggestions.h"
#include "cli/terminal.h"
#include "idefics/error.h"

namespace idefics::cli {

namespace {

template <typename T>
std::optional<T> parse(std::string_view text) {
  if (text.starts_with('+')) text.remove_prefix(1);
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// "--max-tokens" -> "IDEFICS_MAX_TOKENS".
std::string variable_name(const std::string& long_name) {
  std::string name = "IDEFICS_" + long_name;
  for (char& c : name) c = c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return name;
}

[[noreturn]] void refuse(const CLI::Option& option, std::string_view wanted) {
  const std::string value = option.results().back(), variable = option.get_envname();
  const char* set = std::getenv(variable.c_str());
  const bool from_environment = set != nullptr && option.results().size() == 1 && value == set;
  throw Error(ErrorCode::kUsage,
              fmt::format("{} is \"{}\", wanted {}", from_environment ? variable : "--" + option.get_lnames().front(),
                          value, wanted));
}

std::string one_of(const std::vector<std::string>& choices) {
  return fmt::format("one of {}", fmt::join(choices, ", "));
}

OptionInfo describe(const CLI::Option& option) {
  OptionInfo info;
  for (const std::string& name : option.get_snames()) info.names.push_back("-" + name);
  for (const std::string& name : option.get_lnames()) info.names.push_back("--" + name);
  if (option.get_items_expected_max() > 0) info.value = option.get_type_name();
  info.help = option.get_description();
  info.variable = option.get_envname();
  info.group = option.get_group();
  info.repeatable = option.get_items_expected_max() > 1;
  return info;
}

std::vector<OptionInfo> describe_options(const CLI::App& app) {
  std::vector<OptionInfo> out;
  for (const CLI::Option* option : app.get_options()) {
    if (!option->get_positional()) out.push_back(describe(*option));
  }
  // CLI11 has --help first; people look for it last.
  std::stable_partition(out.begin(), out.end(), [](const OptionInfo& o) { return o.group != "Help"; });
  return out;
}

VerbInfo describe_verb(const CLI::App& app) {
  VerbInfo info;
  const std::string description = app.get_description();
  const size_t end = std::min(description.find("\n\n"), description.size());
  info.name = app.get_name();
  info.summary = description.substr(0, end);
  if (end < description.size()) info.details = description.substr(end + 2);
  info.example = app.get_footer();
  for (const CLI::Option* option : app.get_options()) {
    if (option->get_positional())
      info.arguments.push_back({option->get_name(true), option->get_description(), option->get_required()});
  }
  info.options = describe_options(app);
  return info;
}

std::string suggest(const std::string& word, const std::vector<std::string>& known) {
  const std::string best = nearest(word, known);
  return best.empty() ? "" : fmt::format("did you mean {}? ", best);
}

// Why CLI11 refused the line, in our words as far as we have better ones: an unknown word explains most other
// complaints.
std::string explain(const CLI::App& app, const CLI::ParseError& error) {
  const std::vector<CLI::App*> chosen = app.get_subcommands();
  if (chosen.empty()) {
    std::vector<std::string> verbs;
    for (const CLI::App* verb : app.get_subcommands({})) verbs.push_back(verb->get_name());
    for (const std::string& word : app.remaining()) {
      if (!word.starts_with('-'))
        return fmt::format("there is no verb \"{}\": {}idefics --help lists them", word, suggest(word, verbs));
      return fmt::format("there is no option {} before the verb; see idefics --help", word);
    }
    return fmt::format("no verb was given, wanted {}; see idefics --help", one_of(verbs));
  }
  const CLI::App& verb = *chosen.front();
  for (const std::string& word : verb.remaining()) {
    const std::string name = word.substr(0, word.find('='));
    if (word.size() > 1 && word.starts_with('-') && word != "--") {
      std::vector<std::string> known;
      for (const OptionInfo& option : describe_options(verb))
        known.insert(known.end(), option.names.begin(), option.names.end());
      return fmt::format("{} has no option {}: {}see idefics {} --help", verb.get_name(), name, suggest(name, known),
                         verb.get_name());
    }
  }
  for (const std::string& word : verb.remaining()) {
    if (word != "--")
      return fmt::format("{}: \"{}\" is one word too many; texts with blanks need quotes (idefics {} --help)",
                         verb.get_name(), word, verb.get_name());
  }
  return fmt::format("{}: {}; see idefics {} --help", verb.get_name(), error.what(), verb.get_name());
}

}  // namespace

std::optional<int64_t> parse_whole(std::string_view text) { return parse<int64_t>(text); }

std::optional<int64_t> parse_length(std::string_view text) {
  int64_t unit = 1;
  if (text.ends_with('k') || text.ends_with('K')) unit = 1024;
  if (text.ends_with('m') || text.ends_with('M')) unit = 1024 * 1024;
  if (text.ends_with('g') || text.ends_with('G')) unit = 1024 * 1024 * 1024;
  if (unit > 1) text.remove_suffix(1);
  const std::optional<int64_t> value = parse_whole(text);
  if (!value || std::abs(*value) > INT64_MAX / unit) return std::nullopt;
  return *value * unit;
}

std::optional<double> parse_number(std::string_view text) {
  const std::optional<double> value = parse<double>(text);
  return value && std::isfinite(*value) ? value : std::nullopt;
}

std::optional<bool> parse_switch(std::string_view text) {
  if (text == "true" || text == "1" || text == "yes" || text == "on") return true;
  if (text == "false" || text == "0" || text == "no" || text == "off") return false;
  return std::nullopt;
}

// ---- Verb ----------------------------------------------------------------------------------------------------------

CLI::Option* Verb::add(const std::string& names, const std::string& what, const std::string& help) {
  CLI::Option* option = app_.add_option(names, CLI::callback_t(), help);
  option->type_name(what)->group(group_)->envname(variable_name(option->get_lnames().front()));
  option->take_last();
  return option;
}

void Verb::argument(const std::string& name, const std::string& help, std::string& value) {
  CLI::Option* option = app_.add_option(name, CLI::callback_t(), help)->required();
  readers_.push_back([option, name, &value] {
    value = option->results().back();
    const std::vector<std::string> choices = split_choices(name);
    if (!choices.empty() && std::find(choices.begin(), choices.end(), value) == choices.end())
      throw Error(ErrorCode::kUsage, fmt::format("\"{}\" is not {}", value, one_of(choices)));
  });
}

void Verb::argument(const std::string& name, const std::string& help, std::optional<std::string>& value) {
  CLI::Option* option = app_.add_option(name, CLI::callback_t(), help);
  readers_.push_back([option, &value] {
    if (!option->empty()) value = option->results().back();
  });
}

void Verb::text(const std::string& names, const std::string& what, const std::string& help,
                std::optional<std::string>& value) {
  CLI::Option* option = add(names, what, help);
  readers_.push_back([option, choices = split_choices(what), &value] {
    if (option->empty()) return;
    value = option->results().back();
    if (!choices.empty() && std::find(choices.begin(), choices.end(), *value) == choices.end())
      refuse(*option, one_of(choices));
  });
}

void Verb::required_text(const std::string& names, const std::string& what, const std::string& help,
                         std::string& value) {
  CLI::Option* option = add(names, what, help);
  option->required();
  readers_.push_back([option, &value] { value = option->results().back(); });
}

void Verb::texts(const std::string& names, const std::string& what, const std::string& help,
                 std::vector<std::string>& values) {
  CLI::Option* option = add(names, what, help);
  // One value behind each occurrence: "--image a.png MODEL" must not take MODEL for a picture.
  option->take_all()->expected(CLI::detail::expected_max_vector_size)->allow_extra_args(false);
  readers_.push_back([option, &values] { values = option->results(); });
}

void Verb::whole(const std::string& names, const std::string& help, int min, int max, std::optional<int>& value) {
  CLI::Option* option = add(names, "N", help);
  readers_.push_back([option, min, max, &value] {
    if (option->empty()) return;
    const std::optional<int64_t> n = parse_whole(option->results().back());
    if (!n || *n < min || *n > max) refuse(*option, fmt::format("a whole number from {} to {}", min, max));
    value = static_cast<int>(*n);
  });
}

void Verb::length(const std::string& names, const std::string& help, int min, int max, std::optional<int>& value) {
  CLI::Option* option = add(names, "N", help);
  readers_.push_back([option, min, max, &value] {
    if (option->empty()) return;
    const std::optional<int64_t> n = parse_length(option->results().back());
    if (!n || *n < min || *n > max) refuse(*option, fmt::format("a number from {} to {}, or the like of 4k", min, max));
    value = static_cast<int>(*n);
  });
}

void Verb::bytes(const std::string& names, const std::string& help, std::optional<int64_t>& value) {
  CLI::Option* option = add(names, "BYTES", help);
  readers_.push_back([option, &value] {
    if (option->empty()) return;
    value = parse_length(option->results().back());
    if (!value || *value < 1) refuse(*option, "a number of bytes, or the like of 512m or 2G");
  });
}

void Verb::seed(const std::string& names, const std::string& help, std::optional<uint64_t>& value) {
  CLI::Option* option = add(names, "N", help);
  readers_.push_back([option, &value] {
    if (option->empty()) return;
    value = parse<uint64_t>(option->results().back());
    if (!value) refuse(*option, "a whole number from 0 to 2^64 - 1");
  });
}

void Verb::number(const std::string& names, const std::string& help, std::optional<double>& value) {
  CLI::Option* option = add(names, "X", help);
  readers_.push_back([option, &value] {
    if (option->empty()) return;
    value = parse_number(option->results().back());
    if (!value) refuse(*option, "a number");
  });
}

void Verb::flag(const std::string& names, const std::string& help, bool& value) {
  CLI::Option* option = app_.add_flag(names, help);
  option->group(group_)->envname(variable_name(option->get_lnames().front()));
  readers_.push_back([option, &value] {
    if (option->empty()) return;
    const std::optional<bool> on = parse_switch(option->results().back());
    if (!on) refuse(*option, "true or false");
    value = *on;
  });
}

int Verb::run() {
  for (const std::function<void()>& read : readers_) read();
  return run_();
}

// ---- CommandLine ---------------------------------------------------------------------------------------------------

CommandLine::CommandLine(const std::string& name, const std::string& version, const std::string& summary)
    : version_(version), app_(std::make_unique<CLI::App>(summary, name)) {
  app_->set_help_flag("-h,--help", "Say how it is used, and end")->group("Help");
  app_->set_version_flag("--version", name + " " + version, "Print the version, and end")->group("Help");
  app_->require_subcommand(1);
}

CommandLine::~CommandLine() = default;

Verb& CommandLine::add_verb(const std::string& name, const std::string& summary, const std::string& example,
                            const std::string& details) {
  std::string word = name;
  std::replace(word.begin(), word.end(), ' ', '-');
  CLI::App* app = app_->add_subcommand(word, details.empty() ? summary : summary + "\n\n" + details);
  app->name(name);  // which may be two words: run() puts them together
  app->footer(example);
  app->get_help_ptr()->group("Help");
  verbs_.push_back(std::make_unique<Verb>(*app));
  return *verbs_.back();
}

CommandTree CommandLine::tree() const {
  CommandTree tree{app_->get_name(), version_, app_->get_description(), describe_options(*app_), {}};
  for (const CLI::App* verb : std::as_const(*app_).get_subcommands({})) tree.verbs.push_back(describe_verb(*verb));
  return tree;
}

int CommandLine::run(int argc, const char* const* argv) {
  // A verb of two words goes to CLI11 as one: nested subcommands would share the place of the upper one's arguments.
  std::vector<const char*> words(argv, argv + argc);
  const std::string two = argc > 2 ? fmt::format("{} {}", argv[1], argv[2]) : "";
  if (std::any_of(verbs_.begin(), verbs_.end(), [&](const auto& verb) { return verb->app().get_name() == two; })) {
    words.erase(words.begin() + 1);
    words[1] = two.c_str();
  }
  try {
    app_->parse(static_cast<int>(words.size()), words.data());
  } catch (const CLI::CallForHelp&) {
    const std::vector<CLI::App*> chosen = app_->get_subcommands();
    print(chosen.empty() ? help_text(tree()) : help_text(tree(), describe_verb(*chosen.front())));
    return 0;
  } catch (const CLI::CallForVersion& version) {
    print(version.what() + std::string("\n"));
    return 0;
  } catch (const CLI::ParseError& error) {
    throw Error(ErrorCode::kUsage, explain(*app_, error));
  }
  for (const std::unique_ptr<Verb>& verb : verbs_) {
    if (verb->app().parsed()) return verb->run();
  }
  throw Error(ErrorCode::kInternal, "the chosen verb is not known");
}

}  // namespace idefics::cli
