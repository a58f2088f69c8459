// Looks a model folder over, file by file, and goes on after an error as far as it can.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace idefics::cli {

enum class Verdict {
  kOk,
  kWarning,  // the model answers, but something is missing or odd
  kError,    // the model cannot be used
  kSkipped,  // cannot be looked at before an error above is mended
};
std::string_view verdict_name(Verdict verdict);  // "ok", "warning", "error", "skipped"

struct Finding {
  std::string subject;  // the file, or what fits with what
  Verdict verdict = Verdict::kOk;
  std::string message;  // what was found
  std::string mend;     // what to do about it; empty when all is well
};

// Reads every file of the folder, the weights' bytes included. Throws nothing for what it finds.
std::vector<Finding> examine(const std::filesystem::path& folder);

}  // namespace idefics::cli
