#include "load/report.h"

#include <gtest/gtest.h>

#include <numeric>

namespace idefics::load {
namespace {

Outcome ok(double ttft, double end, std::vector<float> gaps) {
  Outcome out{.kind = Outcome::Kind::kOk, .status = 200, .e2el_ms = end, .ttft_ms = ttft};
  out.tokens = std::ssize(gaps) + 1;
  out.itl_ms = std::move(gaps);
  return out;
}

TEST(Report, percentiles_are_numpys) {
  std::vector<double> values(101);
  std::iota(values.rbegin(), values.rend(), 0.0);
  const Spread spread = spread_of(values);
  EXPECT_EQ(spread.count, 101);
  EXPECT_EQ(spread.mean, 50);
  EXPECT_EQ(spread.p50, 50);
  EXPECT_EQ(spread.p95, 95);
  EXPECT_EQ(spread.p99, 99);
  EXPECT_EQ(spread.max, 100);
  EXPECT_EQ(spread_of({1, 2}).p50, 1.5);
  EXPECT_DOUBLE_EQ(spread_of({10, 20, 30, 40}).p95, 38.5);
  EXPECT_EQ(spread_of({7}).p99, 7);
  EXPECT_EQ(spread_of({}).count, 0);
}

TEST(Report, refused_and_failed_ones_have_no_part_in_the_times_of_answers) {
  Tally tally({});
  tally.add(ok(10, 40, {10, 20}));
  tally.add(ok(30, 50, {20}));
  tally.add({.kind = Outcome::Kind::kRefused, .status = 503, .e2el_ms = 2});
  Outcome failed{.kind = Outcome::Kind::kFailed, .status = 500, .e2el_ms = 9999};
  failed.problem = "status 500";
  tally.add(failed);
  const LoadReport report = tally.report(2);
  EXPECT_EQ(report.requests, 4);
  EXPECT_EQ(report.completed, 2);
  EXPECT_EQ(report.refused, 1);
  EXPECT_EQ(report.failed, 1);
  EXPECT_EQ(report.good, 2);
  EXPECT_EQ(report.output_tokens, 5);
  EXPECT_EQ(report.ttft.mean, 20);
  EXPECT_EQ(report.tpot.mean, 17.5);
  EXPECT_EQ(report.itl.count, 3);
  EXPECT_EQ(report.e2el.max, 50);
  EXPECT_EQ(report.refusal.max, 2);
  EXPECT_EQ(report.per_s(report.completed), 1);
  const json::object out = load_json(report);
  EXPECT_EQ(out.at("median_e2el_ms"), 45.0);
  EXPECT_EQ(out.at("p99_refusal_ms"), 2.0);
  EXPECT_EQ(out.at("request_throughput"), 1.0);
  EXPECT_EQ(out.at("output_throughput"), 2.5);
  EXPECT_EQ(out.at("errors").at("status 500"), 1);
  EXPECT_NE(load_text(report).find("failed 1 times: status 500"), std::string::npos);
}

TEST(Report, an_answer_is_good_when_it_keeps_every_goal) {
  Tally tally({.ttft_ms = 20, .tpot_ms = 15, .e2el_ms = 100});
  tally.add(ok(20, 100, {15, 15}));
  tally.add(ok(21, 100, {15, 15}));
  tally.add(ok(20, 101, {15, 15}));
  tally.add(ok(20, 100, {15, 16}));
  EXPECT_EQ(tally.report(1).good, 1);
}

TEST(Report, a_hostile_server_cannot_fill_it) {
  Tally tally({});
  for (int i = 0; i < 1000; ++i) {
    Outcome failed;
    failed.problem = "\xff" + std::to_string(i);
    tally.add(failed);
  }
  const LoadReport report = tally.report(0);
  EXPECT_EQ(report.failed, 1000);
  EXPECT_EQ(report.problems.size(), LoadReport::kMaxProblems);
  EXPECT_EQ(report.per_s(5), 0) << "no time has passed";
}

}  // namespace
}  // namespace idefics::load
