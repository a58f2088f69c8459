// The kernels that look the same on every vector width, as templates over a struct of vector operations. A level file
// defines that struct and its micro kernel, then includes nothing else of the library.
//
// Everything here has internal linkage on purpose: each level file compiles its own copy with its own flags, and the
// linker has nothing to mix up.
//
// A struct Simd has  Vector, kLanes and
//   zero() set(x) load(p) store(p, x)                kLanes floats
//   load_first(p, count)                             the first `count` floats and zeros; no byte beyond is read
//   load_first(x, dtype, at, count)                  the same from x[at ..] of dtype
//   store_first(y, dtype, at, count, x)              to y[at ..] of dtype; no byte beyond is written
//   keep_first(x, count, other)                      the first `count` lanes of x, then those of other
//   add sub mul div max sqrt fma(a, b, c) = a b + c, fnma(a, b, c) = c - a b
//   exp2(x)                                          relative error 2e-7; 2^0 == 1; 2^-inf == 0; 0 below 2^-126; NaN
//   sum(x) highest(x)                                over the lanes, in a fixed order
// where `count` may be anything: negative means none, large means all.
#pragma once

#include "kernels/table.h"

namespace idefics::kernels {
namespace {

constexpr float kLog2E = 1.44269504f;

// How the micro kernel sees elements: 32-bit words of a packed matrix or block, one float or a pair of bf16.
struct F32 {
  static constexpr int32_t kPerWord = 1;
};
struct Bf16 {
  static constexpr int32_t kPerWord = 2;
};
constexpr int32_t kWord = 4;  // bytes

template <typename Type>
int32_t words_of(int32_t elements) {
  return elements / Type::kPerWord + elements % Type::kPerWord;
}

// ---- activations

// u / (1 + 2^t)
template <typename Simd>
inline typename Simd::Vector divide_by_one_plus_exp2(typename Simd::Vector u, typename Simd::Vector t) {
  return Simd::div(u, Simd::add(Simd::set(1.0f), Simd::exp2(t)));
}

template <typename Simd>
inline typename Simd::Vector silu(typename Simd::Vector u) {
  return divide_by_one_plus_exp2<Simd>(u, Simd::mul(u, Simd::set(-kLog2E)));
}

// 0.5 (1 + tanh(z)) = 1 / (1 + exp(-2 z)),  -2 log2(e) z = u (c1 + c3 u^2)
template <typename Simd>
inline typename Simd::Vector gelu_tanh(typename Simd::Vector u) {
  constexpr float kC1 = -2.30220819f;  // -2 log2(e) sqrt(2 / pi)
  constexpr float kC3 = kC1 * 0.044715f;
  const auto c = Simd::fma(Simd::mul(u, u), Simd::set(kC3), Simd::set(kC1));
  return divide_by_one_plus_exp2<Simd>(u, Simd::mul(u, c));
}

// ---- GEMM: the part after the sums

// The size of the next group of rows: `most` while there are many, and no lonely row at the end.
inline int32_t next_rows(int32_t rest, int32_t most) {
  if (rest <= most) return rest;
  return rest < 2 * most ? (rest + 1) / 2 : most;
}

// kFull: no column lies beyond N.
template <typename Simd, Epilogue kEpilogue, DType kDType, bool kFull>
void finish_rows(const GemmArgs& a, int32_t m, int32_t rows, int32_t panel, const float* sums) {
  for (int32_t r = 0; r < rows; ++r, sums += kPanel) {
    for (int32_t c = 0; c < kPanel; c += Simd::kLanes) {
      const int32_t n = panel * kPanel + c, rest = kFull ? Simd::kLanes : a.n - n;
      if (!kFull && rest <= 0) break;
      const int64_t at = (m + r) * a.y_stride + n;
      auto y = Simd::load(sums + c);
      if (a.bias != nullptr) y = Simd::add(y, Simd::load_first(a.bias + n, rest));
      if (kEpilogue == Epilogue::kGeluTanh) y = gelu_tanh<Simd>(y);
      if (kEpilogue == Epilogue::kAdd) y = Simd::add(Simd::load_first(static_cast<const float*>(a.y) + at, rest), y);
      Simd::store_first(a.y, kDType, at, rest, y);
    }
  }
}

template <typename Simd, Epilogue kEpilogue, DType kDType>
void finish_rows(const GemmArgs& a, int32_t m, int32_t rows, int32_t panel, const float* sums) {
  if (panel * kPanel + kPanel <= a.n) return finish_rows<Simd, kEpilogue, kDType, true>(a, m, rows, panel, sums);
  finish_rows<Simd, kEpilogue, kDType, false>(a, m, rows, panel, sums);
}

// Applies bias and epilogue to `rows` rows of sums [rows][kPanel] of one panel and stores them.
template <typename Simd>
void finish(const GemmArgs& a, int32_t m, int32_t rows, int32_t panel, const float* sums) {
  const bool f32 = a.y_dtype == DType::kF32;
  switch (a.epilogue) {
    case Epilogue::kStore:
      return f32 ? finish_rows<Simd, Epilogue::kStore, DType::kF32>(a, m, rows, panel, sums)
                 : finish_rows<Simd, Epilogue::kStore, DType::kBf16>(a, m, rows, panel, sums);
    case Epilogue::kGeluTanh:
      return f32 ? finish_rows<Simd, Epilogue::kGeluTanh, DType::kF32>(a, m, rows, panel, sums)
                 : finish_rows<Simd, Epilogue::kGeluTanh, DType::kBf16>(a, m, rows, panel, sums);
    case Epilogue::kAdd: return finish_rows<Simd, Epilogue::kAdd, DType::kF32>(a, m, rows, panel, sums);
  }
}

// ---- norms and elementwise kernels

// The sum over a row of f(x): four vectors of sums side by side, then one tree.
template <typename Simd, typename F>
inline typename Simd::Vector sum_row(const float* x, int32_t e, F f) {
  constexpr int32_t kLanes = Simd::kLanes;
  typename Simd::Vector sum[4] = {Simd::zero(), Simd::zero(), Simd::zero(), Simd::zero()};
  int32_t i = 0;
  for (; i + 4 * kLanes <= e; i += 4 * kLanes) {
    for (int32_t j = 0; j < 4; ++j) sum[j] = Simd::add(sum[j], f(Simd::load(x + i + j * kLanes)));
  }
  for (int32_t j = 0; i < e; i += kLanes, ++j) {
    sum[j] = Simd::add(sum[j], Simd::keep_first(f(Simd::load_first(x + i, e - i)), e - i, Simd::zero()));
  }
  return Simd::set(Simd::sum(Simd::add(Simd::add(sum[0], sum[1]), Simd::add(sum[2], sum[3]))));
}

// 1 / sqrt(sum / e + eps)
template <typename Simd>
inline typename Simd::Vector inverse_root(typename Simd::Vector sum, int32_t e, float eps) {
  const auto mean = Simd::div(sum, Simd::set(static_cast<float>(e)));
  return Simd::div(Simd::set(1.0f), Simd::sqrt(Simd::add(mean, Simd::set(eps))));
}

template <typename Simd>
void layer_norm(const LayerNormArgs& args) noexcept {
  const LayerNormArgs a = args;
  using Vector = typename Simd::Vector;
  for (int32_t t = a.t0; t < a.t1; ++t) {
    const float* x = a.x + t * a.x_stride;
    const Vector sum = sum_row<Simd>(x, a.e, [](Vector v) { return v; });
    const Vector mean = Simd::div(sum, Simd::set(static_cast<float>(a.e)));
    const Vector squares = sum_row<Simd>(x, a.e, [mean](Vector v) {
      const Vector d = Simd::sub(v, mean);
      return Simd::mul(d, d);
    });
    const Vector scale = inverse_root<Simd>(squares, a.e, a.eps);
    for (int32_t i = 0; i < a.e; i += Simd::kLanes) {
      const int32_t rest = a.e - i;
      const Vector d = Simd::mul(Simd::sub(Simd::load_first(x + i, rest), mean), scale);
      const Vector y = Simd::fma(d, Simd::load_first(a.w + i, rest), Simd::load_first(a.b + i, rest));
      Simd::store_first(a.y, a.y_dtype, t * a.y_stride + i, rest, y);
    }
  }
}

template <typename Simd>
void rms_norm(const RmsNormArgs& args) noexcept {
  const RmsNormArgs a = args;
  using Vector = typename Simd::Vector;
  for (int32_t t = a.t0; t < a.t1; ++t) {
    const float* x = a.x + t * a.x_stride;
    const Vector squares = sum_row<Simd>(x, a.e, [](Vector v) { return Simd::mul(v, v); });
    const Vector scale = inverse_root<Simd>(squares, a.e, a.eps);
    for (int32_t i = 0; i < a.e; i += Simd::kLanes) {
      const int32_t rest = a.e - i;
      const Vector y = Simd::mul(Simd::mul(Simd::load_first(x + i, rest), scale), Simd::load_first(a.w + i, rest));
      Simd::store_first(a.y, a.y_dtype, t * a.y_stride + i, rest, y);
    }
  }
}

template <typename Simd>
void rope(const RopeArgs& args) noexcept {
  const RopeArgs a = args;
  const int32_t half = a.d / 2;
  for (int32_t t = a.t0; t < a.t1; ++t) {
    const int64_t row = int64_t{a.pos[t]} * half;
    for (int32_t j = 0; j < half; j += Simd::kLanes) {
      const int32_t rest = half - j;
      const auto c = Simd::load_first(a.cos + row + j, rest);
      const auto s = Simd::load_first(a.sin + row + j, rest);
      for (int32_t head = 0; head < a.heads; ++head) {
        float* x = a.x + t * a.x_stride + int64_t{head} * a.d + j;
        const auto low = Simd::load_first(x, rest), high = Simd::load_first(x + half, rest);
        Simd::store_first(x, DType::kF32, 0, rest, Simd::fnma(high, s, Simd::mul(low, c)));
        Simd::store_first(x, DType::kF32, half, rest, Simd::fma(low, s, Simd::mul(high, c)));
      }
    }
  }
}

template <typename Simd>
void swiglu(const SwigluArgs& args) noexcept {
  const SwigluArgs a = args;
  for (int32_t t = a.t0; t < a.t1; ++t) {
    const float* gate = a.x + t * a.x_stride;
    for (int32_t i = 0; i < a.i; i += Simd::kLanes) {
      const int32_t rest = a.i - i;
      const auto up = Simd::load_first(gate + a.i + i, rest);
      const auto y = Simd::mul(silu<Simd>(Simd::load_first(gate + i, rest)), up);
      Simd::store_first(a.y, a.y_dtype, t * a.y_stride + i, rest, y);
    }
  }
}

template <typename Simd>
void to_bf16(const ToBf16Args& args) noexcept {
  const ToBf16Args a = args;
  for (int32_t t = a.t0; t < a.t1; ++t) {
    const float* x = a.x + t * a.x_stride;
    uint16_t* y = a.y + t * a.y_stride;
    for (int32_t i = 0; i < a.n; i += Simd::kLanes) {
      Simd::store_first(y, DType::kBf16, i, a.n - i, Simd::load_first(x + i, a.n - i));
    }
    if (a.n % 2 != 0) y[a.n] = 0;
  }
}

}  // namespace
}  // namespace idefics::kernels
