// The kernels that work on rows of numbers: norms, rotary positions, SwiGLU, rounding to bf16.
#include <cstring>

#include "kernels/kernel_test.h"

namespace idefics::kernels {
namespace {

constexpr DType kTypes[] = {DType::kF32, DType::kBf16};
constexpr int32_t kWidths[] = {1, 7, 15, 16, 17, 63, 64, 65, 577, 1152};

struct Norm {
  Rows<float> x;
  std::vector<float> w, b;

  Norm(int32_t rows, int32_t width, Random& random)
      : x(rows, width, 3, 7.0f), w(random.normals(size(width))), b(random.normals(size(width))) {
    for (int32_t r = 0; r < rows; ++r) {
      for (int32_t i = 0; i < width; ++i) x.row(r)[i] = 3 * random.normal() + static_cast<float>(r);
    }
  }
  void layer(Output& y, int32_t t0, int32_t t1) const {
    table().layer_norm(
        {x.data.data(), w.data(), b.data(), y.data(), x.stride, y.stride(), t0, t1, x.width, 1e-6f, y.dtype});
  }
  void rms(Output& y, int32_t t0, int32_t t1) const {
    table().rms_norm({x.data.data(), w.data(), y.data(), x.stride, y.stride(), t0, t1, x.width, 1e-5f, y.dtype});
  }
};

TEST(Norms, agree_with_sums_in_double) {
  Random random(1);
  for (const int32_t e : kWidths) {
    for (const DType dtype : kTypes) {
      const Norm norm(5, e, random);
      Output layer(dtype, 5, e, 2), rms(dtype, 5, e, 2);
      norm.layer(layer, 1, 5);
      norm.rms(rms, 1, 5);
      for (int32_t r = 1; r < 5; ++r) {
        const float* x = norm.x.row(r);
        double mean = 0, variance = 0, squares = 0;
        for (int32_t i = 0; i < e; ++i) mean += double{x[i]} / e;
        for (int32_t i = 0; i < e; ++i) variance += (x[i] - mean) * (x[i] - mean) / e;
        for (int32_t i = 0; i < e; ++i) squares += double{x[i]} * double{x[i]} / e;
        for (int32_t i = 0; i < e; ++i) {
          const double w = norm.w[size(i)], b = norm.b[size(i)];
          ASSERT_TRUE(near(layer.at(r, i), (x[i] - mean) / std::sqrt(variance + 1e-6) * w + b, 3e-6, dtype)) << e;
          ASSERT_TRUE(near(rms.at(r, i), x[i] / std::sqrt(squares + 1e-5) * w, 1e-6, dtype)) << e;
        }
      }
      ASSERT_TRUE(layer.gaps_hold() && rms.gaps_hold());
      for (int32_t i = 0; i < e; ++i) {  // row 0 was not asked for
        ASSERT_EQ(layer.at(0, i), bf16_to_f32(Output::kFiller));
        ASSERT_EQ(rms.at(0, i), bf16_to_f32(Output::kFiller));
      }
    }
  }
}

TEST(Norms, a_row_gives_the_same_bytes_alone_and_in_place) {
  Random random(2);
  for (const int32_t e : kWidths) {
    Norm norm(9, e, random);
    Output layer(DType::kF32, 9, e, 0), rms = layer, layer_alone = layer, rms_alone = layer;
    norm.layer(layer, 0, 9);
    norm.rms(rms, 0, 9);
    for (int32_t r = 8; r >= 0; --r) norm.layer(layer_alone, r, r + 1), norm.rms(rms_alone, r, r + 1);
    EXPECT_TRUE(layer.same_bytes(layer_alone));
    EXPECT_TRUE(rms.same_bytes(rms_alone));
    Rows<float> x = norm.x;
    table().layer_norm(
        {x.data.data(), norm.w.data(), norm.b.data(), x.data.data(), x.stride, x.stride, 0, 9, e, 1e-6f, DType::kF32});
    for (int32_t r = 0; r < 9; ++r) ASSERT_EQ(std::memcmp(x.row(r), layer.f32.row(r), size(e) * 4), 0);
    x = norm.x;
    table().rms_norm({x.data.data(), norm.w.data(), x.data.data(), x.stride, x.stride, 0, 9, e, 1e-5f, DType::kF32});
    for (int32_t r = 0; r < 9; ++r) ASSERT_EQ(std::memcmp(x.row(r), rms.f32.row(r), size(e) * 4), 0);
  }
}

TEST(Norms, a_nan_stays_in_its_row) {
  Random random(3);
  Norm norm(3, 40, random);
  norm.x.row(1)[39] = NAN;
  Output layer(DType::kF32, 3, 40, 0), rms = layer;
  norm.layer(layer, 0, 3);
  norm.rms(rms, 0, 3);
  for (int32_t i = 0; i < 40; ++i) {
    EXPECT_TRUE(std::isnan(layer.at(1, i)) && std::isnan(rms.at(1, i)));
    EXPECT_FALSE(std::isnan(layer.at(0, i)) || std::isnan(rms.at(2, i)));
  }
}

TEST(Rope, rotates_each_half_pair_by_the_position_of_its_token) {
  Random random(4);
  for (const int32_t d : {2, 12, 18, 20, 64, 72, 256}) {
    const int32_t heads = 3, rows = 5, half = d / 2;
    const std::vector<float> c = random.normals(size(10 * half)), s = random.normals(size(10 * half));
    const std::vector<int32_t> pos = {4, 0, 9, 9, 2};
    Rows<float> x(rows, heads * d, 5, 7.0f);
    for (int32_t r = 0; r < rows; ++r) {
      for (int32_t i = 0; i < heads * d; ++i) x.row(r)[i] = random.normal();
    }
    const Rows<float> before = x;
    for (const auto& [t0, t1] : {std::pair{0, 2}, {2, 4}}) {  // not the last row
      table().rope({x.data.data(), c.data(), s.data(), pos.data(), x.stride, t0, t1, heads, d});
    }
    ASSERT_TRUE(x.gaps_hold(7.0f));
    for (int32_t r = 0; r < rows; ++r) {
      for (int32_t i = 0; i < heads * d; ++i) {
        const int32_t j = i % d % half;
        const double cosine = c[size(pos[size(r)] * half + j)], sine = s[size(pos[size(r)] * half + j)];
        const float* old = before.row(r);
        const double turned =
            i % d < half ? old[i] * cosine - old[i + half] * sine : old[i] * cosine + old[i - half] * sine;
        ASSERT_TRUE(near(x.row(r)[i], r == 4 ? double{old[i]} : turned, 2e-6)) << d;
      }
    }
  }
}

TEST(Swiglu, multiplies_the_gate_through_silu_with_the_second_half) {
  Random random(5);
  for (const int32_t width : kWidths) {
    for (const DType dtype : kTypes) {
      Rows<float> x(4, 2 * width, 3, 7.0f);
      for (int32_t r = 0; r < 4; ++r) {
        for (int32_t i = 0; i < 2 * width; ++i) x.row(r)[i] = 8 * random.normal();
      }
      Output y(dtype, 4, width, 1), alone = y;
      table().swiglu({x.data.data(), y.data(), x.stride, y.stride(), 0, 4, width, dtype});
      for (int32_t r = 0; r < 4; ++r) {
        table().swiglu({x.data.data(), alone.data(), x.stride, y.stride(), r, r + 1, width, dtype});
        for (int32_t i = 0; i < width; ++i) {
          const double u = x.row(r)[i], up = x.row(r)[width + i];
          ASSERT_TRUE(near(y.at(r, i), u / (1 + std::exp(-u)) * up, 2e-6, dtype));
        }
      }
      ASSERT_TRUE(y.gaps_hold());
      ASSERT_TRUE(y.same_bytes(alone));
    }
  }
}

TEST(Swiglu, silu_is_exact_to_2e_6_and_quiet_at_its_ends) {
  std::vector<float> gate;
  for (float u = -40; u < 40; u += 0.00390625f) gate.push_back(u);
  for (const float u : {-1e30f, -1000.0f, -90.0f, 90.0f, 1000.0f, 1e30f, 1e-30f, 0.0f}) gate.push_back(u);
  const int32_t width = static_cast<int32_t>(gate.size());
  std::vector<float> x = gate, y(size(width));
  x.resize(size(2 * width), 1.0f);
  table().swiglu({x.data(), y.data(), 2 * width, width, 0, 1, width, DType::kF32});
  for (int32_t i = 0; i < width; ++i) {
    const double u = gate[size(i)], wanted = u / (1 + std::exp(-u));
    ASSERT_LE(std::fabs(y[size(i)] - wanted), 2e-6 * std::fabs(wanted) + 1e-30) << u;
  }
  x = {NAN, INFINITY, 1, 1};
  table().swiglu({x.data(), y.data(), 4, 2, 0, 1, 2, DType::kF32});
  EXPECT_TRUE(std::isnan(y[0]));
  EXPECT_EQ(y[1], INFINITY);
}

TEST(ToBf16, rounds_to_nearest_even_and_fills_up_an_odd_row) {
  Random random(6);
  for (const int32_t width : kWidths) {
    Rows<float> x(3, width, 1, 7.0f);
    Rows<uint16_t> y(3, width + width % 2, 2, 0x1234);
    for (int32_t r = 0; r < 3; ++r) {
      for (int32_t i = 0; i < width; ++i) x.row(r)[i] = random.normal();
    }
    x.row(0)[0] = std::bit_cast<float>(0x3f808000u);  // a tie, down to even
    x.row(1)[0] = std::bit_cast<float>(0x3f818000u);  // a tie, up to even
    x.row(2)[0] = std::bit_cast<float>(0x7f7fffffu);  // rounds up to infinity
    if (width > 1) x.row(0)[1] = -INFINITY;
    if (width > 1) x.row(1)[1] = NAN;
    if (width > 1) x.row(2)[1] = std::bit_cast<float>(0x7fffffffu);  // rounding would turn this NaN into -0
    if (width > 7) x.row(2)[6] = std::bit_cast<float>(0xffffffffu);
    if (width > 7) x.row(2)[5] = std::bit_cast<float>(0x7f800001u);  // and cutting would turn this one into infinity
    table().to_bf16({x.data.data(), y.data.data(), x.stride, y.stride, 0, 3, width});
    for (int32_t r = 0; r < 3; ++r) {
      for (int32_t i = 0; i < width; ++i) {
        const float in = x.row(r)[i];
        if (std::isnan(in)) {
          ASSERT_TRUE(std::isnan(bf16_to_f32(y.row(r)[i])));
        } else {
          ASSERT_EQ(y.row(r)[i], f32_to_bf16(in)) << in;
        }
      }
      if (width % 2 != 0) {
        ASSERT_EQ(y.row(r)[width], 0);
      }
    }
    ASSERT_TRUE(y.gaps_hold(0x1234));
  }
}

}  // namespace
}  // namespace idefics::kernels
