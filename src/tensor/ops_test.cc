// What ops adds to the kernels: the same bytes for every number of threads and rows, packing, odd widths.
#include "tensor/ops.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <random>

#include "base/half.h"

namespace idefics {
namespace {

std::vector<float> noise(size_t count, uint32_t seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0, 1);
  std::vector<float> out(count);
  for (float& x : out) x = normal(generator);
  return out;
}

PackedMatrix pack(Arena& memory, Format format, int64_t n, int64_t k, const std::vector<float>& w) {
  PackedMatrix packed(memory, format, n, k);
  kernels::pack(packed.row_packing(0, n, Element::kF32, w.data()));
  return packed;
}

TEST(Ops, the_level_that_was_asked_for_runs) {
  const char* level = std::getenv("IDEFICS_KERNELS");
  ASSERT_NE(level, nullptr) << "the test runner sets IDEFICS_KERNELS";
  EXPECT_STREQ(kernels::choose_table().name, level);
}

TEST(Ops, a_packed_row_reads_back_rounded) {
  Arena memory(size_t{1} << 22, "weights");
  for (const int64_t n : {1, 63, 64, 65, 130}) {
    for (const int64_t k : {1, 2, 7, 64}) {
      const auto w = noise(static_cast<size_t>(n * k), 1);
      const PackedMatrix f32 = pack(memory, Element::kF32, n, k, w), bf16 = pack(memory, Element::kBf16, n, k, w);
      std::vector<float> row(static_cast<size_t>(k));
      for (int64_t r = 0; r < n; ++r) {
        f32.read_row(r, row.data());
        ASSERT_EQ(std::memcmp(row.data(), w.data() + r * k, row.size() * 4), 0);
        bf16.read_row(r, row.data());
        for (int64_t i = 0; i < k; ++i)
          ASSERT_EQ(row[static_cast<size_t>(i)], bf16_to_f32(f32_to_bf16(w[static_cast<size_t>(r * k + i)])));
      }
    }
  }
}

// y = a W^T by double sums.
void expect_product(const std::vector<float>& a, const std::vector<float>& w, int64_t T, int64_t K, int64_t N,
                    Matrix<float> y, bool bf16) {
  const auto in = [bf16](float x) { return bf16 ? bf16_to_f32(f32_to_bf16(x)) : x; };
  for (int64_t t = 0; t < T; ++t) {
    for (int64_t n = 0; n < N; ++n) {
      double sum = 0, size = 0;
      for (int64_t k = 0; k < K; ++k) {
        const double term = double{in(a[static_cast<size_t>(t * K + k)])} * in(w[static_cast<size_t>(n * K + k)]);
        sum += term;
        size += std::abs(term);
      }
      ASSERT_NEAR(y.row(t)[n], sum, 1e-6 * size + 1e-6) << T << " x " << K << " x " << N << " at " << t << ", " << n;
    }
  }
}

TEST(Ops, matmul_is_right_and_the_same_for_any_threads_and_rows) {
  ThreadPool one(1), two(2);
  Arena arena(8 << 20, "test"), memory(1 << 20, "weights");
  const Exec exec1{kernels::choose_table(), one, arena}, exec2{kernels::choose_table(), two, arena};
  for (const Element dtype : {Element::kF32, Element::kBf16}) {
    for (const auto& [T, K, N] :
         {std::tuple<int64_t, int64_t, int64_t>{1, 7, 65}, {5, 64, 64}, {13, 33, 200}, {400, 48, 70}}) {
      ArenaScope scope(arena);
      const auto a = noise(static_cast<size_t>(T * K), 2), w = noise(static_cast<size_t>(N * K), 3);
      const PackedMatrix packed = pack(memory, dtype, N, K, w);
      const Activation in = arena.take_activation(dtype, T, K);
      ops::convert(exec1, Matrix<const float>(a.data(), T, K), in);
      const Matrix<float> y1 = arena.take_matrix(T, N), y2 = arena.take_matrix(T, N), y3 = arena.take_matrix(T, N);
      ops::matmul(exec1, in, packed, y1);
      ops::matmul(exec2, in, packed, y2);
      for (int64_t t = 0; t < T; ++t) ops::matmul(exec1, in.row_range(t, 1), packed, y3.row_range(t, 1));
      expect_product(a, w, T, K, N, y1, dtype == Element::kBf16);
      EXPECT_EQ(std::memcmp(y1.data(), y2.data(), static_cast<size_t>(T * N) * 4), 0);
      EXPECT_EQ(std::memcmp(y1.data(), y3.data(), static_cast<size_t>(T * N) * 4), 0);
    }
  }
}

TEST(Ops, quantized_matmul_is_the_same_for_any_threads_and_rows) {
  ThreadPool one(1), two(2);
  Arena arena(8 << 20, "test"), memory(1 << 20, "weights");
  const Exec exec1{kernels::choose_table(), one, arena}, exec2{kernels::choose_table(), two, arena};
  for (const Format format : {Format::kQ8, Format::kQ4, Format::kInt8}) {
    for (const auto& [T, K, N] :
         {std::tuple<int64_t, int64_t, int64_t>{1, 7, 65}, {5, 64, 64}, {13, 33, 200}, {400, 72, 70}}) {
      ArenaScope scope(arena);
      const auto a = noise(static_cast<size_t>(T * K), 2), w = noise(static_cast<size_t>(N * K), 3);
      const PackedMatrix packed = pack(memory, format, N, K, w);
      const Activation in = arena.take_activation(format, T, K);
      ops::convert(exec1, Matrix<const float>(a.data(), T, K), in);
      const Matrix<float> y1 = arena.take_matrix(T, N), y2 = arena.take_matrix(T, N), y3 = arena.take_matrix(T, N);
      ops::matmul(exec1, in, packed, y1);
      ops::matmul(exec2, in, packed, y2);
      for (int64_t t = T; t-- > 0;) ops::matmul(exec1, in.row_range(t, 1), packed, y3.row_range(t, 1));
      EXPECT_EQ(std::memcmp(y1.data(), y2.data(), static_cast<size_t>(T * N) * 4), 0);
      EXPECT_EQ(std::memcmp(y1.data(), y3.data(), static_cast<size_t>(T * N) * 4), 0);
      std::vector<float> row(static_cast<size_t>(K));
      for (int64_t n = 0; n < N; ++n) {  // int8 rounds its inputs: to 1/127 of the largest of 64, here less than 4
        packed.read_row(n, row.data());
        double sum = 0, size = 0;
        for (int64_t k = 0; k < K; ++k) {
          sum += double{a[static_cast<size_t>((T - 1) * K + k)]} * double{row[static_cast<size_t>(k)]};
          size += std::abs(double{row[static_cast<size_t>(k)]});
        }
        ASSERT_NEAR(y1.row(T - 1)[n], sum, (format == Format::kInt8 ? 0.02 : 0.01) * size);
      }
    }
  }
}

TEST(Ops, an_odd_bf16_row_ends_in_zero) {
  ThreadPool pool(1);
  Arena arena(1 << 20, "test");
  const Exec exec{kernels::choose_table(), pool, arena};
  const auto x = noise(3 * 7, 4), w = noise(7, 5);
  const Activation y = arena.take_activation(Element::kBf16, 3, 7);
  std::memset(y.data(), 0xff, 3 * 8 * 2);
  ops::rms_norm(exec, Matrix<const float>(x.data(), 3, 7), w, 1e-5f, y);
  for (int64_t t = 0; t < 3; ++t) EXPECT_EQ(static_cast<uint16_t*>(y.row(t))[7], 0);
}

TEST(Arena, measuring_and_taking_agree) {
  const auto plan = [](Arena& a) {
    a.take_matrix(3, 5);
    ArenaScope scope(a);
    a.take_activation(Element::kBf16, 4, 7);
  };
  Arena measure;
  plan(measure);
  Arena arena(measure.peak(), "test");
  plan(arena);
  EXPECT_EQ(arena.peak(), arena.capacity());
  EXPECT_EQ(arena.used(), 64u);
}

}  // namespace
}  // namespace idefics
