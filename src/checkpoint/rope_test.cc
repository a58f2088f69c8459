#include "checkpoint/rope.h"

#include <gtest/gtest.h>

#include <cmath>

namespace idefics {
namespace {

Llama3Config config_of(int head_dim, double theta) {
  Llama3Config config;
  config.head_dim = head_dim;
  config.rope_theta = theta;
  return config;
}

TEST(Rope, frequencies_without_scaling_are_powers_of_theta) {
  EXPECT_FLOAT_EQ(rope_inv_freq(config_of(64, 1e5))[1], 0.697830558f);
  EXPECT_FLOAT_EQ(rope_inv_freq(config_of(64, 1e5))[31], 1.43301268e-05f);
  EXPECT_FLOAT_EQ(rope_inv_freq(config_of(64, 273768))[16], 0.00191121106f);
  EXPECT_EQ(rope_inv_freq(config_of(2, 1e4)), std::vector<float>{1.0f});
}

TEST(Rope, llama3_scaling_leaves_high_frequencies_and_divides_low_ones) {
  Llama3Config config = config_of(128, 5e5);
  config.rope_scaling_params = Llama3RopeScalingParams{8, 1, 4, 8192};
  const std::vector<float> inv = rope_inv_freq(config);
  EXPECT_FLOAT_EQ(inv[28], 0.00321144611f);
  EXPECT_FLOAT_EQ(inv[29], 0.00216657063f);
  EXPECT_FLOAT_EQ(inv[34], 0.000178507791f);
  EXPECT_FLOAT_EQ(inv[35], 9.55621217e-05f);
  EXPECT_FLOAT_EQ(inv[63], 3.06892588e-07f);
}

TEST(Rope, rows_round_the_angle_to_float_before_the_cosine) {
  const std::vector<float> inv = {1.0f, 0.1f, 0.012345f};
  std::vector<float> cos(3 * 2), sin(cos.size());
  rope_rows(inv, std::vector<int32_t>{0, 4999}, cos, sin);
  for (size_t j = 0; j < 3; ++j) {
    EXPECT_EQ(cos[j], 1.0f);
    EXPECT_EQ(sin[j], 0.0f);
    const float angle = 4999.0f * inv[j];
    EXPECT_FLOAT_EQ(cos[3 + j], static_cast<float>(std::cos(double{angle})));
    EXPECT_FLOAT_EQ(sin[3 + j], static_cast<float>(std::sin(double{angle})));
  }
}

}  // namespace
}  // namespace idefics
