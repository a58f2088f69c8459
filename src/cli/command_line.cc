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

void Verb::Given::refuse(std::string_view wanted) const {
  throw Error(ErrorCode::kUsage, fmt::format("{} is \"{}\", wanted {}", name, last(), wanted));
}

CLI::Option* Verb::add(const std::string& names, const std::string& what, const std::string& help, Kind kind) {
  const bool is_switch = kind == Kind::kSwitch;
  CLI::Option* option = is_switch ? app_.add_flag(names, help) : app_.add_option(names, CLI::callback_t(), help);
  if (!is_switch) option->type_name(what)->take_last();
  option->group(group_)->envname(variable_name(option->get_lnames().front()));
  for (const std::string& name : option->get_lnames()) keys_[name] = {option, kind};
  return option;
}

// Whether it is there is checked when it is read: the file may have it.
CLI::Option* Verb::add_argument(const std::string& name, const std::string& help, bool required) {
  CLI::Option* option = app_.add_option(name, CLI::callback_t(), help);
  if (required) required_.push_back(option);
  std::string lower_name = name;
  for (char& c : lower_name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  keys_[lower_name] = {option, Kind::kText};
  return option;
}

void Verb::argument(const std::string& name, const std::string& help, std::string& value) {
  CLI::Option* option = add_argument(name, help, true);
  readers_.push_back([this, option, name, &value] {
    value = given(option).last();
    const std::vector<std::string> choices = split_choices(name);
    if (!choices.empty() && std::find(choices.begin(), choices.end(), value) == choices.end())
      throw Error(ErrorCode::kUsage, fmt::format("\"{}\" is not {}", value, one_of(choices)));
  });
}

void Verb::argument(const std::string& name, const std::string& help, std::optional<std::string>& value) {
  CLI::Option* option = add_argument(name, help, false);
  readers_.push_back([this, option, &value] {
    if (const Given words = given(option); !words.empty()) value = words.last();
  });
}

void Verb::text(const std::string& names, const std::string& what, const std::string& help,
                std::optional<std::string>& value) {
  CLI::Option* option = add(names, what, help, Kind::kText);
  readers_.push_back([this, option, choices = split_choices(what), &value] {
    const Given words = given(option);
    if (words.empty()) return;
    value = words.last();
    if (!choices.empty() && std::find(choices.begin(), choices.end(), *value) == choices.end())
      words.refuse(one_of(choices));
  });
}

void Verb::required_text(const std::string& names, const std::string& what, const std::string& help,
                         std::string& value) {
  CLI::Option* option = add(names, what, help, Kind::kText);
  required_.push_back(option);
  readers_.push_back([this, option, &value] { value = given(option).last(); });
}

void Verb::texts(const std::string& names, const std::string& what, const std::string& help,
                 std::vector<std::string>& values) {
  CLI::Option* option = add(names, what, help, Kind::kTexts);
  // One value behind each occurrence: "--image a.png MODEL" must not take MODEL for a picture.
  option->take_all()->expected(CLI::detail::expected_max_vector_size)->allow_extra_args(false);
  readers_.push_back([this, option, &values] { values = given(option).values; });
}

void Verb::number(const std::string& names, const std::string& help, Kind kind, const Range& range,
                  std::optional<int>& value) {
  CLI::Option* option = add(names, "N", help, kind);
  readers_.push_back([this, option, range, &value] {
    const Given words = given(option);
    if (words.empty()) return;
    const std::optional<int64_t> n = range.parse(words.last());
    if (!n || *n < range.min || *n > range.max) words.refuse(range.wanted);
    value = static_cast<int>(*n);
  });
}

void Verb::whole(const std::string& names, const std::string& help, int min, int max, std::optional<int>& value) {
  const std::string wanted = fmt::format("a whole number from {} to {}", min, max);
  number(names, help, Kind::kWhole, {parse_whole, min, max, wanted}, value);
}

void Verb::length(const std::string& names, const std::string& help, int min, int max, std::optional<int>& value) {
  const std::string wanted = fmt::format("a number from {} to {}, or the like of 4k", min, max);
  number(names, help, Kind::kLength, {parse_length, min, max, wanted}, value);
}

void Verb::bytes(const std::string& names, const std::string& help, std::optional<int64_t>& value) {
  CLI::Option* option = add(names, "BYTES", help, Kind::kLength);
  readers_.push_back([this, option, &value] {
    const Given words = given(option);
    if (words.empty()) return;
    value = parse_length(words.last());
    if (!value || *value < 1) words.refuse("a number of bytes, or the like of 512m or 2G");
  });
}

void Verb::seed(const std::string& names, const std::string& help, std::optional<uint64_t>& value) {
  CLI::Option* option = add(names, "N", help, Kind::kWhole);
  readers_.push_back([this, option, &value] {
    const Given words = given(option);
    if (words.empty()) return;
    value = parse<uint64_t>(words.last());
    if (!value) words.refuse("a whole number from 0 to 2^64 - 1");
  });
}

void Verb::number(const std::string& names, const std::string& help, std::optional<double>& value) {
  CLI::Option* option = add(names, "X", help, Kind::kNumber);
  readers_.push_back([this, option, &value] {
    const Given words = given(option);
    if (words.empty()) return;
    value = parse_number(words.last());
    if (!value) words.refuse("a number");
  });
}

void Verb::flag(const std::string& names, const std::string& help, bool& value) {
  CLI::Option* option = add(names, "", help, Kind::kSwitch);
  readers_.push_back([this, option, &value] {
    const Given words = given(option);
    if (words.empty()) return;
    const std::optional<bool> on = parse_switch(words.last());
    if (!on) words.refuse("true or false");
    value = *on;
  });
}

// ---- The file of settings

void Verb::config_file() {
  group("Settings");
  config_ = add("--config", "FILE", "A TOML file with values for these options: max-tokens = 100", Kind::kText);
  keys_.erase("config");
}

void Verb::read_config() {
  if (config_ == nullptr || config_->empty()) return;
  const std::string path = config_->results().back();
  for (const Setting& setting : read_settings(path)) take(setting, path);
}

void Verb::take(const Setting& setting, const std::string& path) {
  using Type = Setting::Type;
  const auto known = keys_.find(setting.key);
  if (known == keys_.end()) {
    std::vector<std::string> names;
    for (const auto& [name, option] : keys_) names.push_back(name);
    throw Error(ErrorCode::kUsage, fmt::format("{}: there is no setting \"{}\": {}see idefics {} --help", setting.place,
                                               setting.key, suggest(setting.key, names), app_.get_name()));
  }
  const auto& [option, kind] = known->second;
  const auto want = [&](std::initializer_list<Type> types, std::string_view wanted) {
    if (std::find(types.begin(), types.end(), setting.type) != types.end()) return;
    throw Error(ErrorCode::kUsage,
                fmt::format("{}: {} is {}, wanted {}", setting.place, setting.key, setting.what, wanted));
  };
  switch (kind) {
    case Kind::kText: want({Type::kText}, "a text in quotes"); break;
    case Kind::kTexts: want({Type::kText, Type::kTexts}, "a text in quotes, or a list of such"); break;
    case Kind::kWhole: want({Type::kWhole}, "a whole number"); break;
    case Kind::kLength: want({Type::kWhole, Type::kText}, "a whole number, or the like of \"4k\""); break;
    case Kind::kNumber: want({Type::kWhole, Type::kNumber}, "a number"); break;
    case Kind::kSwitch: want({Type::kSwitch}, "true or false"); break;
  }
  if (option->get_type_name() == "KEY") require_own_file(path, setting.key, true);
  from_file_[option] = {setting.values, fmt::format("{}: {}", setting.place, setting.key)};
}

// ---- Reading

Verb::Given Verb::given(const CLI::Option* option) const {
  if (option->empty()) {
    const auto in_file = from_file_.find(option);
    return in_file == from_file_.end() ? Given{} : in_file->second;
  }
  const std::string variable = option->get_envname();
  const char* set = std::getenv(variable.c_str());
  const bool from_environment = set != nullptr && option->results() == std::vector<std::string>{set};
  const bool named = !option->get_lnames().empty();
  return {option->results(), from_environment ? variable : named ? "--" + option->get_lnames().front() : ""};
}

void Verb::read() {
  read_config();
  for (const CLI::Option* option : required_) {
    if (given(option).empty())
      throw Error(ErrorCode::kUsage, fmt::format("{}: {} is required; see idefics {} --help", app_.get_name(),
                                                 option->get_name(), app_.get_name()));
  }
  for (const std::function<void()>& reader : readers_) reader();
}

std::vector<std::string> Verb::values(const std::string& name) const { return given(app_.get_option(name)).values; }

int Verb::run() {
  read();
  return run_();
}

VerbInfo Verb::describe() const {
  VerbInfo info;
  const std::string description = app_.get_description();
  const size_t end = std::min(description.find("\n\n"), description.size());
  info.name = app_.get_name();
  info.summary = description.substr(0, end);
  if (end < description.size()) info.details = description.substr(end + 2);
  info.example = app_.get_footer();
  for (const CLI::Option* option : std::as_const(app_).get_options()) {
    if (!option->get_positional()) continue;
    const bool required = std::find(required_.begin(), required_.end(), option) != required_.end();
    info.arguments.push_back({option->get_name(true), option->get_description(), required});
  }
  info.options = describe_options(app_);
  return info;
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
  for (const std::unique_ptr<Verb>& verb : verbs_) tree.verbs.push_back(verb->describe());
  return tree;
}

Verb* CommandLine::chosen() const {
  const std::vector<CLI::App*> apps = app_->get_subcommands();
  for (const std::unique_ptr<Verb>& verb : verbs_) {
    if (!apps.empty() && &verb->app() == apps.front()) return verb.get();
  }
  return nullptr;
}

Verb* CommandLine::parse(int argc, const char* const* argv) {
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
    print(chosen() == nullptr ? help_text(tree()) : help_text(tree(), chosen()->describe()));
    return nullptr;
  } catch (const CLI::CallForVersion& version) {
    print(version.what() + std::string("\n"));
    return nullptr;
  } catch (const CLI::ParseError& error) {
    throw Error(ErrorCode::kUsage, explain(*app_, error));
  }
  if (chosen() == nullptr) throw Error(ErrorCode::kInternal, "the chosen verb is not known");
  return chosen();
}

int CommandLine::run(int argc, const char* const* argv) {
  Verb* verb = parse(argc, argv);
  return verb == nullptr ? 0 : verb->run();
}

}  // namespace idefics::cli
