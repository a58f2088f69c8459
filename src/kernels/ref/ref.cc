// Every slot in plain C++: what the kernels mean. Sums are taken in double, so that this level can judge the others.
// Compiled for the baseline CPU, so it may use the library's headers.
#include <cmath>
#include <cstring>
#include <limits>

#include "base/half.h"
#include "kernels/levels.h"
#include "kernels/ref/finish.h"

namespace idefics::kernels {
namespace {

// How each element type lies in memory. `b`, `k` and `v` read a packed panel and a block pair.
struct F32 {
  using Element = float;
  static float load(float x) { return x; }
  static float round(float x) { return x; }
  static int64_t panel_size(int32_t k) { return int64_t{k} * kPanel; }
  static int64_t panel_at(int32_t k, int32_t column) { return int64_t{k} * kPanel + column; }
  static int32_t v_at(int32_t slot, int32_t i, int32_t dp) { return slot * dp + i; }
  static float scale(const float*, int32_t, int32_t) { return 1; }
};

struct Bf16 {
  using Element = uint16_t;
  static float load(uint16_t x) { return bf16_to_f32(x); }
  static float round(float x) { return bf16_to_f32(f32_to_bf16(x)); }
  static int64_t panel_size(int32_t k) { return int64_t{k + k % 2} * kPanel; }
  static int64_t panel_at(int32_t k, int32_t column) { return (int64_t{k / 2} * kPanel + column) * 2 + k % 2; }
  static int32_t v_at(int32_t slot, int32_t i, int32_t dp) { return (slot / 2 * dp + i) * 2 + slot % 2; }
  static float scale(const uint16_t*, int32_t, int32_t) { return 1; }
};

// Of keys and values alone.
struct Q8 {
  using Element = int8_t;
  static float load(int8_t x) { return x; }
  static float round(float x) { return Bf16::round(x); }
  static int64_t panel_at(int32_t k, int32_t column) { return Bf16::panel_at(k, column); }
  static int32_t v_at(int32_t slot, int32_t i, int32_t dp) { return Bf16::v_at(slot, i, dp); }
  static float scale(const int8_t* block, int32_t slot, int32_t dp) {
    float scale;
    std::memcpy(&scale, block + kBlock * dp + 4 * slot, sizeof(scale));
    return scale;
  }
};

template <typename Type>
void gemm(const GemmArgs& a) noexcept {
  constexpr int32_t kStrip = 16;  // columns whose sums a compiler can keep in registers
  using Element = typename Type::Element;
  for (int32_t panel = a.panel0; panel < a.panel1; ++panel) {
    const Element* b = static_cast<const Element*>(a.b) + panel * Type::panel_size(a.k);
    const int32_t columns = a.n - panel * kPanel < kPanel ? a.n - panel * kPanel : kPanel;
    for (int32_t m = a.m0; m < a.m1; ++m) {
      const Element* row = static_cast<const Element*>(a.a) + m * a.a_stride;
      for (int32_t i0 = 0; i0 < columns; i0 += kStrip) {
        double sum[kStrip] = {};
        for (int32_t k = 0; k < a.k; ++k) {
          const double x = Type::load(row[k]);
          for (int32_t i = 0; i < kStrip; ++i) sum[i] += x * double{Type::load(b[Type::panel_at(k, i0 + i)])};
        }
        for (int32_t i = i0; i < i0 + kStrip && i < columns; ++i) finish(a, m, panel * kPanel + i, sum[i - i0]);
      }
    }
  }
}

void layer_norm(const LayerNormArgs& a) noexcept {
  for (int32_t t = a.t0; t < a.t1; ++t) {
    const float* x = a.x + t * a.x_stride;
    double sum = 0, squares = 0;
    for (int32_t i = 0; i < a.e; ++i) sum += double{x[i]};
    const double mean = sum / a.e;
    for (int32_t i = 0; i < a.e; ++i) squares += (x[i] - mean) * (x[i] - mean);
    const double scale = 1 / std::sqrt(squares / a.e + double{a.eps});
    for (int32_t i = 0; i < a.e; ++i) {
      store(a.y, a.y_dtype, t * a.y_stride + i,
            static_cast<float>((x[i] - mean) * scale * double{a.w[i]} + double{a.b[i]}));
    }
  }
}

void rms_norm(const RmsNormArgs& a) noexcept {
  for (int32_t t = a.t0; t < a.t1; ++t) {
    const float* x = a.x + t * a.x_stride;
    double squares = 0;
    for (int32_t i = 0; i < a.e; ++i) squares += double{x[i]} * double{x[i]};
    const double scale = 1 / std::sqrt(squares / a.e + double{a.eps});
    for (int32_t i = 0; i < a.e; ++i) {
      store(a.y, a.y_dtype, t * a.y_stride + i, static_cast<float>(x[i] * scale * double{a.w[i]}));
    }
  }
}

void rope(const RopeArgs& a) noexcept {
  const int32_t half = a.d / 2;
  for (int32_t t = a.t0; t < a.t1; ++t) {
    const float* c = a.cos + int64_t{a.pos[t]} * half;
    const float* s = a.sin + int64_t{a.pos[t]} * half;
    for (int32_t head = 0; head < a.heads; ++head) {
      float* x = a.x + t * a.x_stride + int64_t{head} * a.d;
      for (int32_t j = 0; j < half; ++j) {
        const float low = x[j], high = x[j + half];
        x[j] = low * c[j] - high * s[j];
        x[j + half] = high * c[j] + low * s[j];
      }
    }
  }
}

void swiglu(const SwigluArgs& a) noexcept {
  for (int32_t t = a.t0; t < a.t1; ++t) {
    const float* gate = a.x + t * a.x_stride;
    const float* up = gate + a.i;
    for (int32_t i = 0; i < a.i; ++i) {
      const double u = gate[i];
      store(a.y, a.y_dtype, t * a.y_stride + i, static_cast<float>(u / (1 + std::exp(-u)) * double{up[i]}));
    }
  }
}

void to_bf16(const ToBf16Args& a) noexcept {
  for (int32_t t = a.t0; t < a.t1; ++t) {
    uint16_t* y = a.y + t * a.y_stride;
    for (int32_t i = 0; i < a.n; ++i) y[i] = f32_to_bf16(a.x[t * a.x_stride + i]);
    if (a.n % 2 != 0) y[a.n] = 0;
  }
}

float load(const void* x, DType dtype, int64_t at) {
  return dtype == DType::kF32 ? static_cast<const float*>(x)[at] : bf16_to_f32(static_cast<const uint16_t*>(x)[at]);
}

// A row of d floats as q8: d integers, and their scale.
float quantize_head(const float* x, int32_t d, int8_t* to) {
  float most = 0;
  bool finite = true;
  for (int32_t i = 0; i < d; ++i) {
    finite = finite && std::isfinite(x[i]);
    most = std::fmax(most, std::fabs(x[i]));
  }
  const bool zero = !finite || most < 0x1p-100f;
  const float inverse = zero ? 0.0f : 127.0f / most;
  for (int32_t i = 0; i < d; ++i)
    to[i] = static_cast<int8_t>(zero ? 0 : std::nearbyint(double{x[i]} * double{inverse}));
  return !finite ? std::numeric_limits<float>::quiet_NaN() : zero ? 0.0f : most / 127.0f;
}

void store_q8(const KvStoreArgs& a, int32_t slot, const float* key, const float* value) {
  const int32_t dp = padded_head(a.d);
  auto* k = static_cast<int8_t*>(a.k_block);
  auto* v = static_cast<int8_t*>(a.v_block);
  int8_t keys[kMaxHead] = {}, values[kMaxHead] = {};
  const float k_scale = quantize_head(key, a.d, keys), v_scale = quantize_head(value, a.d, values);
  for (int32_t i = 0; i < dp; ++i) {
    k[Q8::panel_at(i, slot)] = keys[i];
    v[Q8::v_at(slot, i, dp)] = values[i];
  }
  std::memcpy(k + kBlock * dp + 4 * slot, &k_scale, sizeof(k_scale));
  std::memcpy(v + kBlock * dp + 4 * slot, &v_scale, sizeof(v_scale));
}

void kv_store(const KvStoreArgs& a) noexcept {
  const int32_t dp = padded_head(a.d);
  const bool f32 = a.dtype == KvType::kF32;
  const DType dtype = f32 ? DType::kF32 : DType::kBf16;
  const int32_t k_size = f32 ? a.d : dp;
  for (int32_t slot = a.slot0; slot < a.slot1; ++slot) {
    float k_row[kMaxHead], v_row[kMaxHead];
    for (int32_t i = 0; i < a.d; ++i) {
      k_row[i] = load(a.k, a.x_dtype, (slot - a.slot0) * a.k_stride + i);
      v_row[i] = load(a.v, a.x_dtype, (slot - a.slot0) * a.v_stride + i);
    }
    if (a.dtype == KvType::kQ8) {
      store_q8(a, slot, k_row, v_row);
      continue;
    }
    for (int32_t i = 0; i < dp; ++i) {
      const float k = i < a.d ? k_row[i] : 0.0f, v = i < a.d ? v_row[i] : 0.0f;
      if (i < k_size) store(a.k_block, dtype, f32 ? F32::panel_at(i, slot) : Bf16::panel_at(i, slot), k);
      store(a.v_block, dtype, f32 ? F32::v_at(slot, i, dp) : Bf16::v_at(slot, i, dp), v);
    }
  }
}

// One row of attention between two blocks.
struct Row {
  float q[kMaxHead];
  double out[kMaxHead] = {};  // sum of probability * value, relative to `max`
  double sum = 0;             // sum of probabilities
  float max = -std::numeric_limits<float>::infinity();
};

// Adds the first `keys` keys of a block.
template <typename Type>
void add_block(const AttentionArgs& a, const void* k_block, const void* v_block, int32_t keys, Row& row) {
  const auto* k = static_cast<const typename Type::Element*>(k_block);
  const auto* v = static_cast<const typename Type::Element*>(v_block);
  const int32_t dp = padded_head(a.d);
  float p[kBlock];
  float max = row.max;
  for (int32_t j = 0; j < keys; ++j) {
    double dot = 0;
    for (int32_t i = 0; i < a.d; ++i) dot += double{row.q[i]} * double{Type::load(k[Type::panel_at(i, j)])};
    p[j] = static_cast<float>(dot * double{Type::scale(k, j, dp)} * double{a.scale});
    if (p[j] > max) max = p[j];
  }
  const double shrink = std::exp(double{row.max} - double{max});
  row.max = max;
  row.sum *= shrink;
  for (int32_t i = 0; i < a.d; ++i) row.out[i] *= shrink;
  for (int32_t j = 0; j < keys; ++j) {
    p[j] = static_cast<float>(std::exp(double{p[j]} - double{max}));
    row.sum += double{p[j]};
    p[j] = Type::round(p[j] * Type::scale(v, j, dp));
    for (int32_t i = 0; i < a.d; ++i) row.out[i] += double{p[j]} * double{Type::load(v[Type::v_at(j, i, dp)])};
  }
}

template <typename Type>
void attention(const AttentionArgs& a) noexcept {
  for (int32_t r = a.r0; r < a.r1; ++r) {
    const int32_t token = r / a.group, head = r % a.group;
    Row row;
    for (int32_t i = 0; i < a.d; ++i) {
      row.q[i] = Type::round(load(a.q, a.q_dtype, token * a.q_stride + head * a.d + i));
    }
    for (int32_t first = 0; first < a.limit[token]; first += kBlock) {
      const int32_t keys = a.limit[token] - first < kBlock ? a.limit[token] - first : kBlock;
      add_block<Type>(a, a.k_blocks[first / kBlock], a.v_blocks[first / kBlock], keys, row);
    }
    for (int32_t i = 0; i < a.d; ++i) {
      store(a.y, a.y_dtype, token * a.y_stride + head * a.d + i, static_cast<float>(row.out[i] / row.sum));
    }
  }
}

}  // namespace

const Table kRefTable = {
    "ref",  gemm<F32>, gemm<Bf16>, layer_norm,     rms_norm,        rope,
    swiglu, to_bf16,   kv_store,   attention<F32>, attention<Bf16>, attention<Q8>,
};

}  // namespace idefics::kernels
