// What a run of load came to.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"

namespace idefics::load {

// What an answer must keep to be a good one; nothing: that it is complete.
struct Goal {
  std::optional<double> ttft_ms, tpot_ms, e2el_ms;
};

// One request. Times are milliseconds from the moment when it was to begin: a late start counts as waiting.
struct Outcome {
  enum class Kind { kOk, kRefused, kFailed };
  Kind kind = Kind::kFailed;
  int status = 0;      // 0: no response
  double late_ms = 0;  // how much later than meant it was sent: the generator's own share
  double e2el_ms = 0;
  std::optional<double> ttft_ms = std::nullopt;  // nothing: an answer without text
  std::vector<float> itl_ms = {};                // between pieces of text
  int64_t tokens = 0;
  std::string problem = {};  // kFailed
};

// Of many times in milliseconds; all 0 when there are none.
struct Spread {
  int64_t count = 0;
  double mean = 0, p50 = 0, p95 = 0, p99 = 0, max = 0;
};
// Percentiles between two values are interpolated, as numpy does.
Spread spread_of(std::vector<double> values);

struct LoadReport {
  double duration_s = 0;  // from the first start to the last end
  int64_t requests = 0, completed = 0, refused = 0, failed = 0, good = 0, output_tokens = 0;
  Spread ttft, tpot, itl, e2el;  // of complete answers
  Spread refusal;                // of refusals (429, 503): from start to end
  Spread late;
  std::map<std::string, int64_t> problems;  // at most kMaxProblems different ones
  static constexpr size_t kMaxProblems = 8;

  double per_s(int64_t count) const { return duration_s > 0 ? static_cast<double>(count) / duration_s : 0; }
};

// Counts outcomes as they come.
class Tally {
 public:
  explicit Tally(const Goal& goal) : goal_(goal) {}
  void add(const Outcome& outcome);
  LoadReport report(double duration_s) const;

 private:
  Goal goal_;
  LoadReport report_;
  std::vector<double> ttft_, tpot_, itl_, e2el_, refusal_, late_;
};

// Under the names of vLLM's benchmark (request_throughput, p99_ttft_ms, ...). docs: bench/README.md.
json::object load_json(const LoadReport& report);
// A table for people.
std::string load_text(const LoadReport& report);

}  // namespace idefics::load
