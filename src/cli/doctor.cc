// idefics doctor: is this model folder complete and sound, and if not, what mends it?
#include <fmt/format.h>

#include <algorithm>
#include <memory>

#include "base/json.h"
#include "base/utf8.h"
#include "cli/examination.h"
#include "cli/shared_flags.h"
#include "cli/terminal.h"
#include "cli/verbs.h"
#include "idefics/error.h"

namespace idefics::cli {

namespace {

struct Doctor {
  ModelArgument model;
  bool json = false;
};

int64_t count(const std::vector<Finding>& findings, Verdict verdict) {
  return std::count_if(findings.begin(), findings.end(), [&](const Finding& f) { return f.verdict == verdict; });
}

Color color_of(Verdict verdict) {
  switch (verdict) {
    case Verdict::kOk: return Color::kGreen;
    case Verdict::kWarning: return Color::kYellow;
    case Verdict::kError: return Color::kRed;
    case Verdict::kSkipped: return Color::kDim;
  }
  return Color::kNone;
}

void print_text(const std::vector<Finding>& findings) {
  for (const Finding& f : findings) {
    print(fmt::format("{:<8}", verdict_name(f.verdict)), color_of(f.verdict));
    print(fmt::format(" {:<22} {}\n", f.subject, one_line(f.message)));
    if (!f.mend.empty()) print(fmt::format("{:32}mend: {}\n", "", f.mend));
  }
  print(
      fmt::format("errors: {}, warnings: {}\n", count(findings, Verdict::kError), count(findings, Verdict::kWarning)));
}

std::string to_json(const std::string& folder, const std::vector<Finding>& findings) {
  json::array checks;
  for (const Finding& f : findings) {
    checks.emplace_back(json::object{{"subject", f.subject},
                                     {"verdict", verdict_name(f.verdict)},
                                     {"message", repair_utf8(f.message)},
                                     {"mend", f.mend}});
  }
  return json::serialize(json::object{{"folder", repair_utf8(folder)},
                                      {"errors", count(findings, Verdict::kError)},
                                      {"warnings", count(findings, Verdict::kWarning)},
                                      {"checks", std::move(checks)}}) +
         "\n";
}

int run(const Doctor& options) {
  options.model.require();
  const std::vector<Finding> findings = examine(options.model.folder);
  if (options.json) {
    print(to_json(options.model.folder, findings));
  } else {
    print_text(findings);
  }
  return count(findings, Verdict::kError) > 0 ? exit_code(ErrorCode::kBadModel) : 0;
}

}  // namespace

void add_doctor(CommandLine& line) {
  Verb& verb =
      line.add_verb("doctor", "Check a model folder file by file.", "idefics doctor models/tiny-cards",
                    "Says of each file and of what has to fit together: ok, warning, or error with how to mend "
                    "it. Reads all weights once. Exits with 4 when there is an error.");
  const auto options = std::make_shared<Doctor>();
  options->model.describe(verb);
  verb.group("Output");
  verb.flag("--json", "Print one JSON object", options->json);
  verb.action([options] { return run(*options); });
}

}  // namespace idefics::cli
