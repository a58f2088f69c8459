#include "cli/settings_file.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <toml++/toml.h>
#include <unistd.h>

#include <algorithm>

#include "base/files.h"
#include "base/utf8.h"
#include "idefics/error.h"

namespace idefics::cli {

namespace {

constexpr uint64_t kMaxBytes = uint64_t{1} << 20;

std::string place_of(const std::filesystem::path& path, const toml::source_region& source) {
  return fmt::format("{}:{}", path.string(), source.begin.line);
}

// The parser says so too, but not where.
void require_utf8(const std::filesystem::path& path, std::string_view text) {
  int line = 1;
  for (size_t start = 0; start < text.size(); ++line) {
    const size_t end = std::min(text.find('\n', start), text.size());
    if (!is_utf8(text.substr(start, end - start)))
      throw Error(ErrorCode::kUsage, fmt::format("{}:{}: is not UTF-8", path.string(), line));
    start = end + 1;
  }
}

// TOML has nothing but ASCII outside of texts and comments, and toml++ 3.3 steps into undefined behaviour there.
void require_ascii_outside_of_texts(const std::filesystem::path& path, std::string_view text) {
  std::string_view quote;  // of the text that is open
  bool comment = false;
  int line = 1;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '\n') {
      ++line;
      comment = false;
      if (quote.size() == 1) quote = {};
    } else if (comment) {
      continue;
    } else if (!quote.empty()) {
      if (c == '\\' && quote.front() == '"' && i + 1 < text.size() && text[i + 1] != '\n') {
        ++i;
      } else if (text.substr(i).starts_with(quote)) {
        i += quote.size() - 1;
        // Up to two quotes before the closing three belong to the text.
        for (int more = 0; more < 2 && quote.size() == 3 && i + 1 < text.size() && text[i + 1] == c; ++more) ++i;
        quote = {};
      }
    } else if (c == '"' || c == '\'') {
      const std::string_view long_quote = c == '"' ? R"(""")" : "'''";
      quote = text.substr(i).starts_with(long_quote) ? long_quote : long_quote.substr(0, 1);
      i += quote.size() - 1;
    } else if (c == '#') {
      comment = true;
    } else if (static_cast<unsigned char>(c) >= 0x80) {
      throw Error(ErrorCode::kUsage, fmt::format("{}:{}: has other than ASCII outside of quotes", path.string(), line));
    }
  }
}

// The texts of a list; nothing when there is something else in it.
std::vector<std::string> texts_of(const toml::array& list) {
  std::vector<std::string> texts;
  for (const toml::node& item : list) {
    const toml::value<std::string>* text = item.as_string();
    if (text == nullptr) return {};
    texts.push_back(text->get());
  }
  return texts;
}

Setting to_setting(const std::string& key, const toml::node& node) {
  using Type = Setting::Type;
  if (const auto* text = node.as_string()) return {key, Type::kText, {text->get()}, "a text", ""};
  if (const auto* whole = node.as_integer())
    return {key, Type::kWhole, {std::to_string(whole->get())}, "a whole number", ""};
  if (const auto* number = node.as_floating_point())
    return {key, Type::kNumber, {fmt::format("{}", number->get())}, "a number", ""};
  if (const auto* on = node.as_boolean()) return {key, Type::kSwitch, {on->get() ? "true" : "false"}, "a switch", ""};
  if (const auto* list = node.as_array()) {
    std::vector<std::string> texts = texts_of(*list);
    const bool fits = texts.size() == list->size() && !texts.empty();
    return {key, fits ? Type::kTexts : Type::kOther, std::move(texts), fits ? "a list of texts" : "a list", ""};
  }
  return {key, Type::kOther, {}, node.is_table() ? "a table" : "a date or a time", ""};
}

}  // namespace

std::vector<Setting> read_settings(const std::filesystem::path& path) {
  const std::string text = read_file(path, kMaxBytes, ErrorCode::kUsage);
  require_utf8(path, text);
  require_ascii_outside_of_texts(path, text);
  toml::table table;
  try {
    table = toml::parse(text, path.string());
  } catch (const toml::parse_error& e) {
    throw Error(ErrorCode::kUsage, fmt::format("{}: {}", place_of(path, e.source()), e.description()));
  }
  std::vector<std::pair<toml::source_index, Setting>> found;
  for (const auto& [key, node] : table) {
    Setting setting = to_setting(std::string(key.str()), node);
    setting.place = place_of(path, key.source());
    found.emplace_back(key.source().begin.line, std::move(setting));
  }
  std::stable_sort(found.begin(), found.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<Setting> settings;
  for (auto& [line, setting] : found) settings.push_back(std::move(setting));
  return settings;
}

void require_own_file(const std::filesystem::path& path, const std::string& what, bool secret) {
  struct stat status = {};
  if (::stat(path.c_str(), &status) != 0) return;  // who reads it says why it cannot
  if (status.st_uid != 0 && status.st_uid != ::geteuid())
    throw Error(ErrorCode::kUsage,
                fmt::format("{}: holds {} and belongs to user {}, wanted one of root or of the user that runs this",
                            path.string(), what, status.st_uid));
  const mode_t forbidden = secret ? S_IWGRP | S_IRWXO : S_IWOTH;
  if ((status.st_mode & forbidden) == 0) return;
  throw Error(
      ErrorCode::kUsage,
      fmt::format("{}: holds {} and has mode {:04o}, with which others may {} it; chmod {} it", path.string(), what,
                  status.st_mode & 07777, (status.st_mode & S_IRWXO & ~S_IWOTH) != 0 && secret ? "read" : "change",
                  secret ? "600" : "o-w"));
}

}  // namespace idefics::cli
