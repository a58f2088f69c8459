// A file of settings (TOML): values of options under their names.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace idefics::cli {

struct Setting {
  enum class Type { kText, kTexts, kWhole, kNumber, kSwitch, kOther };

  std::string key;
  Type type = Type::kOther;
  std::vector<std::string> values;  // as they would stand on a command line; none for kOther
  std::string what;                 // "a text", "a table"
  std::string place;                // "serve.toml:12"
};

// The settings in the order of their lines. Errors: kUsage, one line with the file and the line.
std::vector<Setting> read_settings(const std::filesystem::path& path);

// Error{kUsage} when others than root and this user may change the file. `secret`: or read it, but for its group.
// `what`: what it holds, for the message.
void require_own_file(const std::filesystem::path& path, const std::string& what, bool secret);

}  // namespace idefics::cli
