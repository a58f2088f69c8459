#include "idefics/inputs.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/half.h"
#include "idefics/error.h"

namespace idefics {

namespace {

// x in the wanted format, as bits.
void copy_as(std::span<const float> from, DType dtype, Tensor& to, int64_t first) {
  if (dtype == DType::kF32) {
    std::copy(from.begin(), from.end(), to.as_mutable<float>().begin() + first);
  } else {
    std::transform(from.begin(), from.end(), to.as_mutable<uint16_t>().begin() + first, f32_to_bf16);
  }
}

bool is_real(std::span<const float> frame, DType dtype) {
  return std::any_of(frame.begin(), frame.end(),
                     [&](float x) { return dtype == DType::kF32 ? x != 0 : (f32_to_bf16(x) & 0x7fff) != 0; });
}

}  // namespace

std::vector<Tensor> KVCacheInputs::flatten() const {
  return {kv_blocks, cache_lengths, lookup_table, max_prompt_length, max_cache_length, page_stride};
}

RealFrames remove_padding_frames(const Tensor& padded, Architecture architecture, DType dtype) {
  const auto& shape = padded.shape();
  if (padded.dtype() != TensorDType::kF32 || shape.size() != 5 || shape[2] != 3 || shape[3] != shape[4] ||
      padded.num_elements() == 0) {
    throw Error(ErrorCode::kInvalidValue,
                fmt::format("padded frames: {}, wanted float32 [samples, frames, 3, side, side]", padded.describe()));
  }
  if (dtype != DType::kF32 && dtype != DType::kBf16) {
    throw Error(ErrorCode::kInvalidValue, fmt::format("dtype is {}, wanted float32 or bfloat16", dtype_name(dtype)));
  }
  const int64_t B = shape[0], n = shape[1], side = shape[3], size = 3 * side * side;
  const auto frame = [&](int64_t i) {
    return padded.as<float>().subspan(static_cast<size_t>(i * size), static_cast<size_t>(size));
  };
  std::vector<int64_t> real;
  RealFrames out{.pixel_values = std::nullopt, .frames_per_sample = std::vector<int>(static_cast<size_t>(B))};
  for (int64_t i = 0; i < B * n; ++i) {
    if (is_real(frame(i), dtype)) real.push_back(i);
  }
  if (real.empty()) {
    if (architecture == Architecture::kIdefics3)
      throw Error(ErrorCode::kInvalidValue, "padded frames: all values are 0, so every frame is padding");
    real.push_back(0);
  }
  out.pixel_values =
      Tensor::zeros(dtype == DType::kF32 ? TensorDType::kF32 : TensorDType::kBf16, {std::ssize(real), 3, side, side});
  for (int64_t k = 0; k < std::ssize(real); ++k) {
    const int64_t i = real[static_cast<size_t>(k)];
    ++out.frames_per_sample[static_cast<size_t>(i / n)];
    copy_as(frame(i), dtype, *out.pixel_values, k * size);
  }
  return out;
}

}  // namespace idefics
