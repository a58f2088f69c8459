// What the tests of the kernels share: the table under test, seeded inputs, matrices with strides, comparison.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "base/half.h"
#include "kernels/packing.h"
#include "kernels/table.h"

namespace idefics::kernels {

// The table of the level that IDEFICS_KERNELS names. A test that silently ran another level would prove nothing.
inline const Table& table() {
  static const Table& chosen = choose_table();
  static const char* const wanted = std::getenv("IDEFICS_KERNELS");
  if (wanted != nullptr && *wanted != '\0') {
    EXPECT_STREQ(chosen.name, wanted);
  }
  return chosen;
}

class Random {
 public:
  explicit Random(uint32_t seed) : engine_(seed) {}
  int32_t integer(int32_t low, int32_t high) { return std::uniform_int_distribution<int32_t>(low, high)(engine_); }
  float normal() { return normal_(engine_); }
  std::vector<float> normals(size_t count, float scale = 1) {
    std::vector<float> out(count);
    for (float& x : out) x = scale * normal();
    return out;
  }

 private:
  std::mt19937 engine_;
  std::normal_distribution<float> normal_;
};

inline size_t size(int64_t n) { return static_cast<size_t>(n); }

// Rows of `width` elements `stride` apart. What lies between the rows must survive every kernel.
template <typename Element>
struct Rows {
  int32_t count, width;
  int64_t stride;
  std::vector<Element> data;

  Rows(int32_t count_, int32_t width_, int64_t gap, Element filler)
      : count(count_), width(width_), stride(width_ + gap), data(size(count_ * (width_ + gap)), filler) {}
  Element* row(int32_t r) { return data.data() + r * stride; }
  const Element* row(int32_t r) const { return data.data() + r * stride; }
  bool gaps_hold(Element filler) const {
    for (int32_t r = 0; r < count; ++r) {
      for (int64_t i = width; i < stride; ++i) {
        if (row(r)[i] != filler) return false;
      }
    }
    return true;
  }
};

// Results of either type with a filler that no kernel writes.
struct Output {
  static constexpr uint16_t kFiller = 0x7e57;
  DType dtype;
  Rows<float> f32;
  Rows<uint16_t> bf16;

  Output(DType dtype_, int32_t count, int32_t width, int64_t gap)
      : dtype(dtype_), f32(count, width, gap, bf16_to_f32(kFiller)), bf16(count, width, gap, kFiller) {}
  void* data() { return dtype == DType::kF32 ? static_cast<void*>(f32.data.data()) : bf16.data.data(); }
  int64_t stride() const { return f32.stride; }
  float at(int32_t r, int32_t i) const { return dtype == DType::kF32 ? f32.row(r)[i] : bf16_to_f32(bf16.row(r)[i]); }
  bool gaps_hold() const { return f32.gaps_hold(bf16_to_f32(kFiller)) && bf16.gaps_hold(kFiller); }
  bool same_bytes(const Output& other) const {
    return std::memcmp(f32.data.data(), other.f32.data.data(), f32.data.size() * sizeof(float)) == 0 &&
           bf16.data == other.bf16.data;
  }
};

// |value - wanted| <= tolerance * max(1, |wanted|), plus half a step of bf16 where it was rounded to that.
inline testing::AssertionResult near(float value, double wanted, double tolerance, DType dtype = DType::kF32) {
  const double size_of_it = std::fmax(1.0, std::fabs(wanted));
  const double allowed = tolerance * size_of_it + (dtype == DType::kBf16 ? std::fabs(wanted) * 0x1.02p-8 : 0.0);
  if (std::fabs(value - wanted) <= allowed) return testing::AssertionSuccess();
  return testing::AssertionFailure() << value << " instead of " << wanted << ", allowed " << allowed;
}

inline std::string name_of(DType dtype) { return dtype == DType::kF32 ? "f32" : "bf16"; }

}  // namespace idefics::kernels
