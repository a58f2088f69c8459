#include "kernels/packing.h"

#include "kernels/kernel_test.h"

namespace idefics::kernels {
namespace {

constexpr DType kTypes[] = {DType::kF32, DType::kBf16};

// Element (k, n) of a packed matrix, as the layout in table.h says.
float unpacked(const std::vector<uint32_t>& packed, int32_t rows, DType dtype, int32_t k, int32_t n) {
  const int32_t panel = n / kPanel, column = n % kPanel;
  if (dtype == DType::kF32) return std::bit_cast<float>(packed[size((int64_t{panel} * rows + k) * kPanel + column)]);
  const int32_t pairs = rows / 2 + rows % 2;
  const uint32_t pair = packed[size((int64_t{panel} * pairs + k / 2) * kPanel + column)];
  return bf16_to_f32(static_cast<uint16_t>(k % 2 == 0 ? pair : pair >> 16));
}

TEST(Packing, every_element_finds_its_place_and_the_rest_is_zero) {
  Random random(1);
  for (const DType dtype : kTypes) {
    for (const DType w_dtype : kTypes) {
      for (const int32_t n : {1, 63, 64, 65, 200}) {
        for (const int32_t k : {1, 2, 31, 64, 65, 97}) {
          const std::vector<float> f32 = random.normals(size((k + 3) * n));
          std::vector<uint16_t> bf16;
          for (const float x : f32) bf16.push_back(f32_to_bf16(x));
          const void* w = w_dtype == DType::kF32 ? static_cast<const void*>(f32.data()) : bf16.data();
          std::vector<uint32_t> packed(packed_bytes(n, k, dtype) / 4, 0xffffffffu);
          pack({w, w_dtype, k + 3, packed.data(), dtype, 0, n, n, k});
          const bool rounded = dtype == DType::kBf16 || w_dtype == DType::kBf16;
          const int32_t last_k = dtype == DType::kBf16 ? k + k % 2 : k;
          for (int32_t i = 0; i < num_panels(n) * kPanel; ++i) {
            for (int32_t j = 0; j < last_k; ++j) {
              const float x = i < n && j < k ? f32[size(i * (k + 3) + j)] : 0;
              ASSERT_EQ(unpacked(packed, k, dtype, j, i), rounded ? bf16_to_f32(f32_to_bf16(x)) : x);
            }
          }
        }
      }
    }
  }
}

TEST(Packing, several_weights_share_one_matrix) {
  Random random(2);
  for (const DType dtype : kTypes) {
    const int32_t n = 210, k = 33;
    const std::vector<float> w = random.normals(size(n * k));
    std::vector<uint32_t> whole(packed_bytes(n, k, dtype) / 4, 0xffffffffu), parts = whole;
    pack({w.data(), DType::kF32, k, whole.data(), dtype, 0, n, n, k});
    const int32_t bounds[] = {0, 40, 64, 65, 190, 210};
    for (const size_t i : {4u, 0u, 2u, 3u, 1u}) {
      pack({w.data() + bounds[i] * k, DType::kF32, k, parts.data(), dtype, bounds[i], bounds[i + 1], n, k});
    }
    EXPECT_EQ(whole, parts);
  }
}

TEST(Packing, rows_of_a_file_may_lie_anywhere) {
  Random random(3);
  for (const DType dtype : kTypes) {
    const int32_t n = 70, k = 50;
    const std::vector<float> f32 = random.normals(size(n * k));
    std::vector<uint16_t> bf16;
    for (const float x : f32) bf16.push_back(f32_to_bf16(x));
    const void* w = dtype == DType::kF32 ? static_cast<const void*>(f32.data()) : bf16.data();
    const size_t bytes = size(n * k) * (dtype == DType::kF32 ? 4 : 2);
    std::vector<uint32_t> aligned(packed_bytes(n, k, dtype) / 4), odd = aligned;
    pack({w, dtype, k, aligned.data(), dtype, 0, n, n, k});
    std::vector<char> moved(bytes + 1);
    memcpy(moved.data() + 1, w, bytes);
    pack({moved.data() + 1, dtype, k, odd.data(), dtype, 0, n, n, k});
    EXPECT_EQ(aligned, odd);
  }
}

}  // namespace
}  // namespace idefics::kernels
