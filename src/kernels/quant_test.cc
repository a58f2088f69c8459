// Quantised matrices: packing against what it stands for, products against sums in double over the packed values.
#include <cstring>

#include "kernels/kernel_test.h"

namespace idefics::kernels {
namespace {

constexpr Format::Kind kFormats[] = {Format::kQ8, Format::kQ4, Format::kInt8};

// [N, K]
std::vector<float> unpack(const std::vector<uint32_t>& packed, Format format, int32_t n, int32_t k) {
  std::vector<float> out(size(int64_t{n} * k));
  for (int32_t column = 0; column < n; ++column) {
    unpack_column(packed.data(), format, k, column, out.data() + int64_t{column} * k);
  }
  return out;
}

// A product a * w^T with its packed weight and its prepared activations.
struct Problem {
  Format format;
  int32_t m, n, k, groups;
  Rows<uint16_t> a;
  std::vector<float> w, bias;
  std::vector<float> unpacked;  // [N, K]
  std::vector<uint32_t> packed;
  std::vector<float> a_groups;
  std::vector<int32_t> a_integers;
  std::vector<int8_t> a_int8;

  Problem(Format format_, int32_t m_, int32_t n_, int32_t k_, int64_t gap, uint32_t seed)
      : format(format_),
        m(m_),
        n(n_),
        k(k_),
        groups(num_groups(k_, format_ == Format::kInt8 ? kGroupInt8 : kGroup)),
        a(m_, k_ + k_ % 2, 2 * gap, 0x7fff) {
    Random random(seed);
    w = random.normals(size(int64_t{n} * k), 1 / std::sqrt(static_cast<float>(k)));
    for (float& x : w) x += 0.3f / std::sqrt(static_cast<float>(k));  // not around zero
    bias = random.normals(size(n));
    for (int32_t r = 0; r < m; ++r) {
      for (int32_t i = 0; i < k; ++i) a.row(r)[i] = f32_to_bf16(random.normal());
      if (k % 2 != 0) a.row(r)[k] = 0;
    }
    pack_weights();
    prepare();
  }
  void pack_weights() {
    packed.assign(packed_bytes(n, k, format) / 4, 0xffffffffu);
    pack({w.data(), DType::kF32, k, packed.data(), format, 0, n, n, k});
    unpacked = unpack(packed, format, n, k);
  }
  void prepare() {
    a_groups.assign(size(int64_t{m} * groups), -1);
    if (format == Format::kQ4) table().quant.group_sums({a.data.data(), a_groups.data(), a.stride, 0, m, k});
    if (format != Format::kInt8) return;
    a_integers.assign(size(int64_t{m} * groups), -1);
    a_int8.assign(size(int64_t{m} * groups * kGroupInt8), 99);
    table().quant.quantize({a.data.data(), a_int8.data(), a_groups.data(), a_integers.data(), a.stride, 0, m, k});
  }
  // What the products take for element i of a row.
  double input(int32_t r, int32_t i) const {
    if (format != Format::kInt8) return bf16_to_f32(a.row(r)[i]);
    return double{a_groups[size(int64_t{r} * groups + i / kGroupInt8)]} *
           a_int8[size((int64_t{r} * groups + i / kGroupInt8) * kGroupInt8 + i % kGroupInt8)];
  }
  double sum(int32_t r, int32_t column) const {
    double sum = 0;
    for (int32_t i = 0; i < k; ++i) sum += input(r, i) * double{unpacked[size(int64_t{column} * k + i)]};
    return sum;
  }

  QuantGemmArgs args(Output& y, Epilogue epilogue, bool with_bias) const {
    QuantGemmArgs q = {};
    GemmArgs& args = q.gemm;
    args.a = format == Format::kInt8 ? static_cast<const void*>(a_int8.data()) : a.data.data();
    args.a_stride = format == Format::kInt8 ? int64_t{groups} * kGroupInt8 : a.stride;
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
    if (format != Format::kQ8) q.a_groups = a_groups.data();
    if (format == Format::kInt8) q.a_integers = a_integers.data();
    return q;
  }
  void run(const QuantGemmArgs& args) const {
    const QuantKernels& quant = table().quant;
    (format == Format::kQ8 ? quant.gemm_q8 : format == Format::kQ4 ? quant.gemm_q4 : quant.gemm_int8)(args);
  }
};

constexpr DType kTypes[] = {DType::kF32, DType::kBf16};
constexpr Epilogue kEpilogues[] = {Epilogue::kStore, Epilogue::kGeluTanh, Epilogue::kAdd};

double gelu_tanh(double u) { return 0.5 * u * (1 + std::tanh(std::sqrt(2 / M_PI) * (u + 0.044715 * u * u * u))); }

// As for products of floats; and the offsets of q4 and the integers of int8 add terms of their own size.
double tolerance(int32_t k) { return 12 * 0x1p-24 * std::sqrt(k) + 0x1p-22; }

// ---- packing

TEST(Quantize, weights_come_back_within_half_a_step) {
  Random random(1);
  for (const Format format : kFormats) {
    for (const DType w_dtype : kTypes) {
      for (const int32_t n : {1, 63, 64, 65, 130}) {
        for (const int32_t k : {1, 31, 32, 33, 72, 200}) {
          std::vector<float> w = random.normals(size(int64_t{n} * k));
          std::vector<uint16_t> bf16;
          for (float& x : w) bf16.push_back(f32_to_bf16(x));
          if (w_dtype == DType::kBf16) {
            for (size_t i = 0; i < w.size(); ++i) w[i] = bf16_to_f32(bf16[i]);
          }
          std::vector<uint32_t> packed(packed_bytes(n, k, format) / 4, 0xffffffffu);
          pack({w_dtype == DType::kF32 ? static_cast<const void*>(w.data()) : bf16.data(), w_dtype, k, packed.data(),
                format, 0, n, n, k});
          const std::vector<float> back = unpack(packed, format, n, k);
          const int32_t group = format == Format::kInt8 ? k : kGroup;
          for (int32_t column = 0; column < n; ++column) {
            for (int32_t g = 0; g < k; g += group) {
              float low = INFINITY, high = -INFINITY;
              for (int32_t i = g; i < g + group && i < k; ++i) {
                low = std::fmin(low, w[size(column * k + i)]);
                high = std::fmax(high, w[size(column * k + i)]);
              }
              const float most = std::fmax(std::fabs(low), std::fabs(high));
              // The scale, and q4's offset, are rounded to 8 bits: at most 2^-9 of themselves, 127 or 8 times.
              const float step = format == Format::kQ4 ? (high - low) / 15 : most / 127;
              const float bound = step * 0.501f + (format == Format::kQ4   ? 8 * step + most
                                                   : format == Format::kQ8 ? most
                                                                           : 0) *
                                                      0x1p-8f;
              for (int32_t i = g; i < g + group && i < k; ++i) {
                ASSERT_NEAR(back[size(column * k + i)], w[size(column * k + i)], bound)
                    << name_of(format) << " " << n << " " << k;
              }
            }
          }
        }
      }
    }
  }
}

TEST(Quantize, parts_of_a_matrix_packed_one_by_one_give_the_same_bytes) {
  Random random(2);
  for (const Format format : kFormats) {
    const int32_t n = 200, k = 100;
    const std::vector<float> w = random.normals(size(n * k));
    std::vector<uint32_t> whole(packed_bytes(n, k, format) / 4, 1u), parts(whole.size(), 2u);
    pack({w.data(), DType::kF32, k, whole.data(), format, 0, n, n, k});
    for (int32_t n0 = 0; n0 < n;) {
      const int32_t n1 = std::min(n, n0 + random.integer(1, 70));
      pack({w.data() + n0 * k, DType::kF32, k, parts.data(), format, n0, n1, n, k});
      n0 = n1;
    }
    EXPECT_EQ(whole, parts) << name_of(format);
  }
}

TEST(Quantize, zeros_constants_and_the_ends_of_the_range_survive) {
  for (const Format format : kFormats) {
    for (const float x : {0.0f, 1.0f, -3.0f, 0x1p-120f, 0x1p100f, -0x1p100f, 1e-30f}) {
      const std::vector<float> w(40, x);
      std::vector<uint32_t> packed(packed_bytes(1, 40, format) / 4);
      pack({w.data(), DType::kF32, 40, packed.data(), format, 0, 1, 1, 40});
      for (const float back : unpack(packed, format, 1, 40)) {
        ASSERT_TRUE(std::fabs(back - x) <= std::fabs(x) * 0.005f || (back == 0 && std::fabs(x) < 0x1p-100f))
            << name_of(format);
      }
    }
  }
}

TEST(Quantize, a_weight_that_is_no_number_spoils_its_column_only) {
  for (const Format format : kFormats) {
    for (const float poison : {NAN, INFINITY, -INFINITY}) {
      Problem problem(format, 3, 70, 100, 0, 4);
      Output clean(DType::kF32, 3, 70, 0), dirty = clean;
      problem.run(problem.args(clean, Epilogue::kStore, true));
      problem.w[66 * 100 + 99] = poison;
      problem.pack_weights();
      problem.run(problem.args(dirty, Epilogue::kStore, true));
      for (int32_t r = 0; r < 3; ++r) {
        for (int32_t i = 0; i < 70; ++i) {
          if (i == 66) {
            ASSERT_TRUE(std::isnan(dirty.at(r, i)));
          } else {
            ASSERT_EQ(dirty.at(r, i), clean.at(r, i));
          }
        }
      }
    }
  }
}

// ---- activations

TEST(Quantize, activations_are_rounded_as_described_at_every_level) {
  Random random(3);
  for (const int32_t k : {1, 31, 63, 64, 65, 72, 200, 1153}) {
    const int32_t t = 5, groups = num_groups(k, kGroupInt8);
    Rows<uint16_t> x(t, k + k % 2, 6, 0x7fff);
    for (int32_t r = 0; r < t; ++r) {
      for (int32_t i = 0; i < k; ++i) x.row(r)[i] = f32_to_bf16(random.normal() * (r == 1 ? 0x1p-110f : 10.0f));
      if (k % 2 != 0) x.row(r)[k] = 0;
    }
    x.row(2)[k / 2] = f32_to_bf16(NAN);
    x.row(3)[k - 1] = f32_to_bf16(-INFINITY);
    std::vector<int8_t> y(size(t * groups * kGroupInt8), 99), wanted = y;
    std::vector<float> scale(size(t * groups), 99), wanted_scale = scale;
    std::vector<int32_t> sum(size(t * groups), 99), wanted_sum = sum;
    table().quant.quantize({x.data.data(), y.data(), scale.data(), sum.data(), x.stride, 1, t, k});
    const Table& ref = *find_table("ref");
    ref.quant.quantize({x.data.data(), wanted.data(), wanted_scale.data(), wanted_sum.data(), x.stride, 1, t, k});
    ASSERT_EQ(y, wanted) << k;
    ASSERT_EQ(sum, wanted_sum) << k;
    for (size_t i = 0; i < scale.size(); ++i) {
      ASSERT_TRUE(scale[i] == wanted_scale[i] || (std::isnan(scale[i]) && std::isnan(wanted_scale[i]))) << k;
    }
    for (int32_t i = 0; i < k; ++i) {  // and row 4 by hand
      const size_t at = size(int64_t{4} * groups + i / kGroupInt8);
      const float value = bf16_to_f32(x.row(4)[i]);
      ASSERT_NEAR(scale[at] * y[at * kGroupInt8 + size(i % kGroupInt8)], value, 0.501f * scale[at]);
    }
    ASSERT_TRUE(std::isnan(scale[size(int64_t{2} * groups + k / 2 / kGroupInt8)]));
    ASSERT_TRUE(std::isnan(scale[size(int64_t{4} * groups - 1)]));
    ASSERT_EQ(scale[size(groups)], 0);
    ASSERT_EQ(scale[0], 99) << "row 0 was not asked for";
  }
}

// ---- products

TEST(QuantGemm, agrees_with_sums_in_double_at_awkward_sizes) {
  uint32_t seed = 1;
  for (const Format format : kFormats) {
    for (const int32_t m : {1, 2, 5, 7, 16, 17, 40}) {
      for (const int32_t n : {1, 63, 65, 130}) {
        for (const int32_t k : {1, 31, 33, 64, 72, 577}) {
          const Problem problem(format, m, n, k, seed % 3, seed);
          Output y(DType::kF32, m, n, seed % 5);
          problem.run(problem.args(y, Epilogue::kStore, seed % 2 == 0));
          for (int32_t r = 0; r < m; ++r) {
            for (int32_t i = 0; i < n; i += 1 + i % 5) {
              const double wanted = problem.sum(r, i) + (seed % 2 == 0 ? double{problem.bias[size(i)]} : 0.0);
              ASSERT_TRUE(near(y.at(r, i), wanted, tolerance(k)))
                  << name_of(format) << " " << m << " " << n << " " << k << " at " << r << " " << i;
            }
          }
          ASSERT_TRUE(y.gaps_hold());
          ++seed;
        }
      }
    }
  }
}

TEST(QuantGemm, agrees_on_a_long_sum_of_no_whole_groups) {
  for (const Format format : kFormats) {
    const Problem problem(format, 18, 65, 4304, 0, 5);
    Output y(DType::kF32, 18, 65, 0);
    problem.run(problem.args(y, Epilogue::kStore, false));
    for (int32_t r = 0; r < 18; ++r) {
      for (const int32_t i : {0, 40, 63, 64}) ASSERT_TRUE(near(y.at(r, i), problem.sum(r, i), tolerance(4304)));
    }
  }
}

TEST(QuantGemm, applies_every_epilogue_and_writes_both_types) {
  uint32_t seed = 1;
  for (const Format format : kFormats) {
    for (const Epilogue epilogue : kEpilogues) {
      for (const DType y_dtype : kTypes) {
        if (epilogue == Epilogue::kAdd && y_dtype == DType::kBf16) continue;
        for (const bool with_bias : {false, true}) {
          const Problem problem(format, 9, 150, 40, 3, ++seed);
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

TEST(QuantGemm, any_split_of_rows_and_panels_gives_the_same_bytes) {
  Random random(7);
  for (const Format format : kFormats) {
    for (int round = 0; round < 40; ++round) {
      const int32_t m = random.integer(1, round % 8 == 0 ? 200 : 40), n = random.integer(1, 300),
                    k = random.integer(1, 200);
      const Epilogue epilogue = kEpilogues[random.integer(0, 2)];
      const DType y_dtype = epilogue == Epilogue::kAdd ? DType::kF32 : kTypes[random.integer(0, 1)];
      const Problem problem(format, m, n, k, random.integer(0, 3), static_cast<uint32_t>(round));
      Output whole(y_dtype, m, n, 1), parts = whole;
      problem.run(problem.args(whole, epilogue, true));
      for (int32_t m0 = 0; m0 < m;) {
        const int32_t m1 = std::min(m, m0 + random.integer(1, 21));
        for (int32_t p0 = 0; p0 < num_panels(n);) {
          const int32_t p1 = std::min(num_panels(n), p0 + random.integer(1, 3));
          QuantGemmArgs args = problem.args(parts, epilogue, true);
          args.gemm.m0 = m0, args.gemm.m1 = m1, args.gemm.panel0 = p0, args.gemm.panel1 = p1;
          problem.run(args);
          p0 = p1;
        }
        m0 = m1;
      }
      ASSERT_TRUE(whole.same_bytes(parts)) << name_of(format) << " " << m << " " << n << " " << k;
    }
  }
}

TEST(QuantGemm, a_row_gives_the_same_bytes_alone_and_in_any_batch) {
  for (const Format format : kFormats) {
    for (const int32_t m : {1, 2, 3, 4, 5, 6, 7, 13, 16, 17, 33, 40, 140}) {
      const Problem problem(format, m, 70, 333, 0, 3);
      Output batch(DType::kF32, m, 70, 0), alone = batch;
      problem.run(problem.args(batch, Epilogue::kGeluTanh, true));
      for (int32_t r = 0; r < m; ++r) {
        QuantGemmArgs args = problem.args(alone, Epilogue::kGeluTanh, true);
        args.gemm.m0 = r, args.gemm.m1 = r + 1;
        problem.run(args);
      }
      ASSERT_TRUE(batch.same_bytes(alone)) << name_of(format) << " " << m;
    }
  }
}

TEST(QuantGemm, a_row_gives_the_same_bytes_alone_where_products_are_subnormal) {
  for (const Format format : kFormats) {
    Problem problem(format, 20, 70, 100, 0, 6);
    for (float& x : problem.w) x *= 0x1p-70f;
    for (uint16_t& x : problem.a.data) x = f32_to_bf16(bf16_to_f32(x) * 0x1p-57f);
    problem.pack_weights();
    problem.prepare();
    Output batch(DType::kF32, 20, 70, 0), alone = batch;
    problem.run(problem.args(batch, Epilogue::kStore, false));
    for (int32_t r = 0; r < 20; ++r) {
      QuantGemmArgs args = problem.args(alone, Epilogue::kStore, false);
      args.gemm.m0 = r, args.gemm.m1 = r + 1;
      problem.run(args);
    }
    ASSERT_TRUE(batch.same_bytes(alone)) << name_of(format);
  }
}

TEST(QuantGemm, the_largest_integers_do_not_saturate) {
  for (const int32_t m : {1, 6, 20}) {
    for (const int sign : {1, -1}) {
      const int32_t n = 65, k = 640;
      Problem problem(Format::kInt8, m, n, k, 0, 8);
      for (int32_t i = 0; i < n * k; ++i) problem.w[size(i)] = i % k % 4 == 3 && i % 2 == 0 ? -1.0f : 1.0f;
      for (int32_t r = 0; r < m; ++r) {
        for (int32_t i = 0; i < k; ++i) problem.a.row(r)[i] = f32_to_bf16(static_cast<float>(sign));
      }
      problem.pack_weights();
      problem.prepare();
      Output y(DType::kF32, m, n, 0);
      problem.run(problem.args(y, Epilogue::kStore, false));
      for (int32_t r = 0; r < m; ++r) {
        for (int32_t i = 0; i < n; ++i) ASSERT_NEAR(y.at(r, i), problem.sum(r, i), 1e-3);
      }
      ASSERT_NEAR(y.at(0, 0), sign * k, 1e-3);
    }
  }
}

TEST(QuantGemm, nan_and_infinity_reach_their_own_row_only) {
  for (const Format format : kFormats) {
    for (const float poison : {NAN, INFINITY}) {
      Problem problem(format, 8, 70, 33, 0, 11);
      Output clean(DType::kF32, 8, 70, 0), dirty = clean;
      problem.run(problem.args(clean, Epilogue::kGeluTanh, true));
      problem.a.row(4)[32] = f32_to_bf16(poison);
      problem.prepare();
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
