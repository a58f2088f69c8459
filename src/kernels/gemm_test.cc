#include <cstring>

#include "kernels/kernel_test.h"

namespace idefics::kernels {
namespace {

// A product a * w^T with its packed weight, in either type.
struct Problem {
  DType dtype;
  int32_t m, n, k;
  Rows<float> a_f32;
  Rows<uint16_t> a_bf16;
  std::vector<float> w;
  std::vector<float> bias;
  std::vector<uint32_t> packed;

  Problem(DType dtype_, int32_t m_, int32_t n_, int32_t k_, int64_t gap, uint32_t seed)
      : dtype(dtype_), m(m_), n(n_), k(k_), a_f32(m_, k_, gap, NAN), a_bf16(m_, k_ + k_ % 2, 2 * gap, 0x7fff) {
    Random random(seed);
    w = random.normals(size(int64_t{n} * k), 1 / std::sqrt(static_cast<float>(k)));
    bias = random.normals(size(n));
    for (float& x : w) x = value(x);
    for (int32_t r = 0; r < m; ++r) {
      for (int32_t i = 0; i < k; ++i) set(r, i, random.normal());
      if (k % 2 != 0) a_bf16.row(r)[k] = 0;
    }
    packed.assign(packed_bytes(n, k, dtype) / 4, 0xffffffffu);
    pack({w.data(), DType::kF32, k, packed.data(), dtype, 0, n, n, k});
  }
  float value(float x) const { return dtype == DType::kF32 ? x : bf16_to_f32(f32_to_bf16(x)); }
  void set(int32_t r, int32_t i, float x) {
    a_f32.row(r)[i] = value(x);
    a_bf16.row(r)[i] = f32_to_bf16(x);
  }

  GemmArgs args(Output& y, Epilogue epilogue, bool with_bias) const {
    GemmArgs args = {};
    args.a = dtype == DType::kF32 ? static_cast<const void*>(a_f32.data.data()) : a_bf16.data.data();
    args.a_stride = dtype == DType::kF32 ? a_f32.stride : a_bf16.stride;
    args.b = packed.data();
    args.bias = with_bias ? bias.data() : nullptr;
    args.y = y.data();
    args.y_stride = y.stride();
    args.y_dtype = y.dtype;
    args.m1 = m;
    args.panel1 = num_panels(n);
    args.n = n;
    args.k = k;
    args.epilogue = epilogue;
    return args;
  }
  void run(const GemmArgs& args) const { (dtype == DType::kF32 ? table().gemm_f32 : table().gemm_bf16)(args); }

  double sum(int32_t r, int32_t column) const {
    double sum = 0;
    for (int32_t i = 0; i < k; ++i) sum += double{a_f32.row(r)[i]} * double{w[size(int64_t{column} * k + i)]};
    return sum;
  }
};

double gelu_tanh(double u) { return 0.5 * u * (1 + std::tanh(std::sqrt(2 / M_PI) * (u + 0.044715 * u * u * u))); }

constexpr DType kTypes[] = {DType::kF32, DType::kBf16};
constexpr Epilogue kEpilogues[] = {Epilogue::kStore, Epilogue::kGeluTanh, Epilogue::kAdd};

// k roundings of a sum of size 1, of 2^-25 each in the mean: they add up like a random walk; the longest of many walks.
double tolerance(int32_t k) { return 4 * 0x1p-24 * std::sqrt(k) + 0x1p-23; }

TEST(Gemm, agrees_with_sums_in_double_at_awkward_sizes) {
  uint32_t seed = 1;
  for (const DType dtype : kTypes) {
    for (const int32_t m : {1, 2, 3, 4, 5, 6, 7, 13, 17}) {
      for (const int32_t n : {1, 7, 16, 63, 64, 65, 130}) {
        for (const int32_t k : {1, 2, 7, 17, 64, 577}) {
          const Problem problem(dtype, m, n, k, seed % 3, seed);
          Output y(DType::kF32, m, n, seed % 5);
          problem.run(problem.args(y, Epilogue::kStore, seed % 2 == 0));
          for (int32_t r = 0; r < m; ++r) {
            for (int32_t i = 0; i < n; ++i) {
              const double wanted = problem.sum(r, i) + (seed % 2 == 0 ? double{problem.bias[size(i)]} : 0.0);
              ASSERT_TRUE(near(y.at(r, i), wanted, tolerance(k))) << name_of(dtype) << " " << m << " " << n << " " << k;
            }
          }
          ASSERT_TRUE(y.gaps_hold());
          ++seed;
        }
      }
    }
  }
}

TEST(Gemm, applies_every_epilogue_and_writes_both_types) {
  uint32_t seed = 1;
  for (const DType dtype : kTypes) {
    for (const Epilogue epilogue : kEpilogues) {
      for (const DType y_dtype : kTypes) {
        if (epilogue == Epilogue::kAdd && y_dtype == DType::kBf16) continue;
        for (const bool with_bias : {false, true}) {
          const Problem problem(dtype, 9, 150, 40, 3, ++seed);
          Output y(y_dtype, 9, 150, 2);
          const Output before = y;
          problem.run(problem.args(y, epilogue, with_bias));
          for (int32_t r = 0; r < 9; ++r) {
            for (int32_t i = 0; i < 150; ++i) {
              double wanted = problem.sum(r, i) + (with_bias ? double{problem.bias[size(i)]} : 0.0);
              if (epilogue == Epilogue::kGeluTanh) wanted = gelu_tanh(wanted);
              if (epilogue == Epilogue::kAdd) wanted += double{before.at(r, i)};
              ASSERT_TRUE(near(y.at(r, i), wanted, tolerance(40), y_dtype));
            }
          }
          ASSERT_TRUE(y.gaps_hold());
        }
      }
    }
  }
}

TEST(Gemm, gelu_is_exact_to_2e_6_from_far_below_zero_to_far_above) {
  const std::vector<float> one = {1.0f};
  std::vector<uint32_t> packed(packed_bytes(1, 1, DType::kF32) / 4);
  pack({one.data(), DType::kF32, 1, packed.data(), DType::kF32, 0, 1, 1, 1});
  std::vector<float> x;
  for (float u = -30; u < 30; u += 0.00390625f) x.push_back(u);
  for (const float u : {-1e30f, -1e10f, -100.0f, 100.0f, 1e10f, 1e30f, 1e-30f, -0.0f, 1e-40f}) x.push_back(u);
  std::vector<float> y(x.size());
  GemmArgs args = {};
  args.a = x.data(), args.b = packed.data(), args.y = y.data();
  args.a_stride = args.y_stride = 1, args.m1 = static_cast<int32_t>(x.size()), args.panel1 = args.n = args.k = 1;
  args.epilogue = Epilogue::kGeluTanh;
  table().gemm_f32(args);
  for (size_t i = 0; i < x.size(); ++i) {
    const double u = x[i], wanted = std::fabs(u) > 1e9 ? std::fmax(u, 0) : gelu_tanh(u);
    ASSERT_LE(std::fabs(y[i] - wanted), 2e-6 * std::fabs(wanted) + 1e-7) << u;
  }
}

TEST(Gemm, any_split_of_rows_and_panels_gives_the_same_bytes) {
  Random random(7);
  for (const DType dtype : kTypes) {
    for (int round = 0; round < 40; ++round) {
      const int32_t most_panels = round % 4 == 0 ? 20 : 5;
      const int32_t m = random.integer(1, 40), n = random.integer(1, most_panels * kPanel), k = random.integer(1, 200);
      const Epilogue epilogue = kEpilogues[random.integer(0, 2)];
      const DType y_dtype = epilogue == Epilogue::kAdd ? DType::kF32 : kTypes[random.integer(0, 1)];
      const Problem problem(dtype, m, n, k, random.integer(0, 3), static_cast<uint32_t>(round));
      Output whole(y_dtype, m, n, 1), parts = whole;
      problem.run(problem.args(whole, epilogue, true));
      for (int32_t m0 = 0; m0 < m;) {
        const int32_t m1 = std::min(m, m0 + random.integer(1, 20));
        for (int32_t p0 = 0; p0 < num_panels(n);) {
          const int32_t p1 = std::min(num_panels(n), p0 + random.integer(1, most_panels / 2));
          GemmArgs args = problem.args(parts, epilogue, true);
          args.m0 = m0, args.m1 = m1, args.panel0 = p0, args.panel1 = p1;
          problem.run(args);
          p0 = p1;
        }
        m0 = m1;
      }
      ASSERT_TRUE(whole.same_bytes(parts)) << name_of(dtype) << " " << m << " " << n << " " << k;
    }
  }
}

TEST(Gemm, a_row_gives_the_same_bytes_alone_and_in_any_batch) {
  for (const DType dtype : kTypes) {
    for (int32_t m = 1; m <= 13; ++m) {
      const Problem problem(dtype, m, 70, 333, 0, 3);
      Output batch(DType::kF32, m, 70, 0), alone = batch;
      problem.run(problem.args(batch, Epilogue::kGeluTanh, true));
      for (int32_t r = 0; r < m; ++r) {  // as its own matrix of one row
        GemmArgs args = problem.args(alone, Epilogue::kGeluTanh, true);
        const int64_t element = dtype == DType::kF32 ? 4 : 2;
        args.a = static_cast<const char*>(args.a) + r * args.a_stride * element;
        args.y = static_cast<float*>(args.y) + r * args.y_stride;
        args.m1 = 1;
        problem.run(args);
      }
      ASSERT_TRUE(batch.same_bytes(alone));
    }
  }
}

TEST(Gemm, a_row_of_a_large_matrix_gives_the_same_bytes_alone) {
  for (const DType dtype : kTypes) {
    for (const int32_t k : {31, 64, 300, 1100}) {
      const int32_t m = dtype == DType::kF32 ? 40 : 600;  // more rows than any level takes together
      const Problem problem(dtype, m, 70, k, 1, 5);
      Output batch(DType::kF32, m, 70, 0), alone = batch;
      problem.run(problem.args(batch, Epilogue::kStore, true));
      for (int32_t r = 0; r < m; r += 1 + r % 7) {
        GemmArgs args = problem.args(alone, Epilogue::kStore, true);
        args.m0 = r, args.m1 = r + 1;
        problem.run(args);
        ASSERT_EQ(std::memcmp(batch.f32.row(r), alone.f32.row(r), 70 * sizeof(float)), 0) << k << " row " << r;
      }
    }
  }
}

TEST(Gemm, a_row_gives_the_same_bytes_alone_where_products_are_subnormal) {
  for (const DType dtype : kTypes) {
    Problem problem(dtype, 5, 70, 100, 0, 6);
    for (float& x : problem.w) x = problem.value(x * 0x1p-70f);
    pack({problem.w.data(), DType::kF32, 100, problem.packed.data(), dtype, 0, 70, 70, 100});
    for (int32_t r = 0; r < 5; ++r) {
      for (int32_t i = 0; i < 100; ++i) problem.set(r, i, problem.a_f32.row(r)[i] * 0x1p-57f);
    }
    Output batch(DType::kF32, 5, 70, 0), alone = batch;
    problem.run(problem.args(batch, Epilogue::kStore, false));
    for (int32_t r = 0; r < 5; ++r) {
      GemmArgs args = problem.args(alone, Epilogue::kStore, false);
      args.m0 = r, args.m1 = r + 1;
      problem.run(args);
    }
    ASSERT_TRUE(batch.same_bytes(alone)) << name_of(dtype);
  }
}

TEST(Gemm, nan_and_infinity_reach_their_own_row_only) {
  for (const DType dtype : kTypes) {
    for (const float poison : {NAN, INFINITY}) {
      Problem problem(dtype, 8, 70, 33, 0, 11);
      Output clean(DType::kF32, 8, 70, 0), dirty = clean;
      problem.run(problem.args(clean, Epilogue::kGeluTanh, true));
      problem.set(4, 32, poison);
      problem.run(problem.args(dirty, Epilogue::kGeluTanh, true));
      for (int32_t r = 0; r < 8; ++r) {
        for (int32_t i = 0; i < 70; ++i) {
          if (r == 4) {
            ASSERT_FALSE(std::fabs(dirty.at(r, i)) < 1e30f && dirty.at(r, i) != 0) << dirty.at(r, i);
          } else {
            ASSERT_EQ(dirty.at(r, i), clean.at(r, i));
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace idefics::kernels
