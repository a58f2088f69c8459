#include "load/arrivals.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace idefics::load {
namespace {

std::vector<double> times(double rate, bool even, uint64_t seed, int count) {
  Arrivals arrivals(rate, even, seed);
  std::vector<double> out;
  for (int i = 0; i < count; ++i) out.push_back(arrivals.next());
  return out;
}

TEST(Arrivals, even_ones_do_not_drift) {
  const std::vector<double> all = times(50, true, 1, 10'001);
  EXPECT_EQ(all.front(), 0.0);
  EXPECT_EQ(all[1], 0.02);
  EXPECT_EQ(all.back(), 200.0);
}

TEST(Arrivals, a_seed_is_a_schedule) {
  EXPECT_EQ(times(50, false, 7, 1000), times(50, false, 7, 1000));
  EXPECT_NE(times(50, false, 7, 1000), times(50, false, 8, 1000));
  const std::vector<double> first = times(1, false, 0, 3);
  EXPECT_EQ(first[0], 0.0);
  EXPECT_DOUBLE_EQ(first[1], 0.12407814913061165) << "on every machine";
}

TEST(Arrivals, distances_are_exponential) {
  constexpr int kCount = 100'000;
  const std::vector<double> all = times(50, false, 3, kCount + 1);
  double sum = 0, squares = 0;
  int short_ones = 0;
  for (int i = 0; i < kCount; ++i) {
    const double gap = all[static_cast<size_t>(i) + 1] - all[static_cast<size_t>(i)];
    ASSERT_GE(gap, 0.0);
    sum += gap;
    squares += gap * gap;
    short_ones += gap < 0.01 ? 1 : 0;
  }
  const double mean = sum / kCount;
  EXPECT_NEAR(mean, 0.02, 0.0004);
  EXPECT_NEAR(std::sqrt(squares / kCount - mean * mean), 0.02, 0.0006) << "deviation equals mean";
  EXPECT_NEAR(static_cast<double>(short_ones) / kCount, 1 - std::exp(-0.5), 0.01);
}

}  // namespace
}  // namespace idefics::load
