#include "calibration/calibration.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

namespace idefics {
namespace {

void expect_rate(std::optional<double> rate, bool wanted, const char* what) {
  ASSERT_EQ(rate.has_value(), wanted) << what;
  if (!wanted) return;
  EXPECT_TRUE(std::isfinite(*rate)) << what;
  EXPECT_GT(*rate, 1e6) << what;
}

void expect_peaks(const Peaks& peaks, bool has_loops) {
  expect_rate(peaks.f32_flops, has_loops, "f32");
  expect_rate(peaks.bf16_flops, has_loops, "bf16");
  expect_rate(peaks.int8_ops, has_loops, "int8");
  expect_rate(peaks.read_bytes, true, "read");
}

TEST(Calibration, has_a_rate_for_whatever_the_level_computes_with) {
  const kernels::Table& table = kernels::choose_table();
  const bool has_loops = std::strcmp(table.name, "ref") != 0;
  const Calibration calibration = calibrate(table, 2);
  EXPECT_EQ(calibration.threads, 2);
  expect_peaks(calibration.one, has_loops);
  expect_peaks(calibration.all, has_loops);
}

TEST(Calibration, of_one_thread_is_measured_once) {
  const Calibration calibration = calibrate(kernels::choose_table(), 1);
  EXPECT_EQ(calibration.all.f32_flops, calibration.one.f32_flops);
  EXPECT_EQ(calibration.all.read_bytes, calibration.one.read_bytes);
}

}  // namespace
}  // namespace idefics
