// What the products of the reference level do with a sum. For files that are compiled for the baseline CPU.
#pragma once

#include <cmath>

#include "base/half.h"
#include "kernels/table.h"

namespace idefics::kernels {

inline void store(void* y, DType dtype, int64_t at, float value) {
  if (dtype == DType::kF32) {
    static_cast<float*>(y)[at] = value;
  } else {
    static_cast<uint16_t*>(y)[at] = f32_to_bf16(value);
  }
}

inline double gelu_tanh(double u) {
  constexpr double kSqrt2OverPi = 0.79788456080286535588;
  return 0.5 * u * (1 + std::tanh(kSqrt2OverPi * (u + 0.044715 * u * u * u)));
}

inline void finish(const GemmArgs& a, int32_t m, int32_t n, double sum) {
  const int64_t at = m * a.y_stride + n;
  const double u = a.bias == nullptr ? sum : sum + a.bias[n];
  switch (a.epilogue) {
    case Epilogue::kStore: return store(a.y, a.y_dtype, at, static_cast<float>(u));
    case Epilogue::kGeluTanh: return store(a.y, a.y_dtype, at, static_cast<float>(gelu_tanh(u)));
    case Epilogue::kAdd: static_cast<float*>(a.y)[at] += static_cast<float>(u);
  }
}

}  // namespace idefics::kernels
