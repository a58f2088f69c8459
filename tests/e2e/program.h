// Runs the program and looks at what it did.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "base/files.h"
#include "base/json.h"

namespace idefics::e2e {

struct Outcome {
  int exit_code = -1;  // -1: ended by a signal
  std::string out, err;
};

struct Setting {
  std::string input = {};                               // standard input
  std::map<std::string, std::string> environment = {};  // added to the test's own
  std::filesystem::path folder = {};                    // working folder; empty: the test's own
  std::string interrupt_after = {};                     // send SIGINT once this stands in standard output
};

// Runs `idefics` with these arguments until it ends; kills it after two minutes.
Outcome run(const std::vector<std::string>& arguments, const Setting& setting = {});

// A line for bash, or `idefics` with these words as bash reads them.
Outcome run_command(const std::string& line);
Outcome run_in_shell(const std::string& words);

// The one JSON value that stands in a text, or null (and a failed test).
json::value parse_output(const Outcome& outcome);

// A folder of its own, removed at the end of the test.
class ScratchFolder {
 public:
  ScratchFolder();
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;
  ~ScratchFolder();
  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path write(const std::string& name, std::string_view bytes) const;
  // A copy of a model folder that may be damaged.
  std::filesystem::path copy_model(const std::filesystem::path& model, const std::string& name = "model") const;
  // Names of all files and folders in it.
  std::vector<std::string> entries() const;

 private:
  std::filesystem::path path_;
};

std::filesystem::path tiny_cards();
std::filesystem::path golden(const std::string& name);
// The folders of the golden checkpoints and of tiny-cards.
std::vector<std::filesystem::path> all_models();
std::string read(const std::filesystem::path& path);
std::vector<json::value> read_rows(const std::filesystem::path& jsonl);
std::string replaced(std::string text, const std::string& from, const std::string& to);

}  // namespace idefics::e2e
