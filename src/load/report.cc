#include "load/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/utf8.h"

namespace idefics::load {

namespace {

double percentile(const std::vector<double>& sorted, double share) {
  const double place = share * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(place);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  return std::lerp(sorted[below], sorted[above], place - static_cast<double>(below));
}

// Time for each token behind the first.
std::optional<double> tpot_of(const Outcome& outcome) {
  if (outcome.tokens < 2 || outcome.itl_ms.empty()) return std::nullopt;
  const double all = std::accumulate(outcome.itl_ms.begin(), outcome.itl_ms.end(), 0.0);
  return all / static_cast<double>(outcome.tokens - 1);
}

bool keeps(const Goal& goal, const Outcome& outcome) {
  return outcome.ttft_ms.value_or(0) <= goal.ttft_ms.value_or(INFINITY) &&
         outcome.e2el_ms <= goal.e2el_ms.value_or(INFINITY) &&
         tpot_of(outcome).value_or(0) <= goal.tpot_ms.value_or(INFINITY);
}

void put(json::object& out, const std::string& name, const Spread& spread) {
  out["mean_" + name] = spread.mean;
  out["median_" + name] = spread.p50;
  out["p95_" + name] = spread.p95;
  out["p99_" + name] = spread.p99;
  out["max_" + name] = spread.max;
}

std::string row(const char* name, const Spread& spread) {
  if (spread.count == 0) return fmt::format("{:<26}{:>10}\n", name, "-");
  return fmt::format("{:<26}{:>10.2f}{:>10.2f}{:>10.2f}{:>10.2f}{:>10.2f}\n", name, spread.mean, spread.p50, spread.p95,
                     spread.p99, spread.max);
}

}  // namespace

Spread spread_of(std::vector<double> values) {
  if (values.empty()) return {};
  std::sort(values.begin(), values.end());
  return {.count = std::ssize(values),
          .mean = std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size()),
          .p50 = percentile(values, 0.50),
          .p95 = percentile(values, 0.95),
          .p99 = percentile(values, 0.99),
          .max = values.back()};
}

void Tally::add(const Outcome& outcome) {
  ++report_.requests;
  late_.push_back(outcome.late_ms);
  if (outcome.kind == Outcome::Kind::kRefused) {
    ++report_.refused;
    refusal_.push_back(outcome.e2el_ms);
    return;
  }
  if (outcome.kind == Outcome::Kind::kFailed) {
    ++report_.failed;
    const std::string line = repair_utf8(outcome.problem);
    if (report_.problems.contains(line) || report_.problems.size() < LoadReport::kMaxProblems) ++report_.problems[line];
    return;
  }
  ++report_.completed;
  report_.good += keeps(goal_, outcome) ? 1 : 0;
  report_.output_tokens += outcome.tokens;
  e2el_.push_back(outcome.e2el_ms);
  if (outcome.ttft_ms) ttft_.push_back(*outcome.ttft_ms);
  if (const std::optional<double> tpot = tpot_of(outcome)) tpot_.push_back(*tpot);
  itl_.insert(itl_.end(), outcome.itl_ms.begin(), outcome.itl_ms.end());
}

LoadReport Tally::report(double duration_s) const {
  LoadReport out = report_;
  out.duration_s = duration_s;
  out.ttft = spread_of(ttft_);
  out.tpot = spread_of(tpot_);
  out.itl = spread_of(itl_);
  out.e2el = spread_of(e2el_);
  out.refusal = spread_of(refusal_);
  out.late = spread_of(late_);
  return out;
}

json::object load_json(const LoadReport& report) {
  json::object out = {{"duration", report.duration_s},
                      {"num_requests", report.requests},
                      {"completed", report.completed},
                      {"refused", report.refused},
                      {"failed", report.failed},
                      {"total_output_tokens", report.output_tokens},
                      {"request_throughput", report.per_s(report.completed)},
                      {"request_goodput", report.per_s(report.good)},
                      {"output_throughput", report.per_s(report.output_tokens)}};
  put(out, "ttft_ms", report.ttft);
  put(out, "tpot_ms", report.tpot);
  put(out, "itl_ms", report.itl);
  put(out, "e2el_ms", report.e2el);
  put(out, "refusal_ms", report.refusal);
  put(out, "start_delay_ms", report.late);
  json::object errors;
  for (const auto& [problem, count] : report.problems) errors[problem] = count;
  out["errors"] = std::move(errors);
  return out;
}

std::string load_text(const LoadReport& report) {
  std::string out = fmt::format(
      "requests  {} in {:.2f} s: {} completed, {} refused, {} failed\n"
      "speed     {:.2f} requests/s, {:.2f} good ones/s, {:.1f} tokens/s\n\n",
      report.requests, report.duration_s, report.completed, report.refused, report.failed,
      report.per_s(report.completed), report.per_s(report.good), report.per_s(report.output_tokens));
  out += fmt::format("{:<26}{:>10}{:>10}{:>10}{:>10}{:>10}\n", "milliseconds", "mean", "p50", "p95", "p99", "max");
  out += row("to the first token", report.ttft) + row("each further token", report.tpot) +
         row("between tokens", report.itl) + row("to the end", report.e2el) + row("to a refusal", report.refusal) +
         row("sent later than meant", report.late);
  for (const auto& [problem, count] : report.problems) out += fmt::format("\nfailed {} times: {}", count, problem);
  return report.problems.empty() ? out : out + "\n";
}

}  // namespace idefics::load
