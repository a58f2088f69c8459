// Products with quantised matrices in plain C++; sums in double, so that this level can judge the others.
#include <cmath>
#include <limits>

#include "base/half.h"
#include "kernels/levels.h"
#include "kernels/ref/finish.h"

namespace idefics::kernels {
namespace {

// The sums of a row with all columns of a panel.
using Sums = double[kPanel];

void sum_q8(const QuantGemmArgs& q, int32_t panel, int32_t m, Sums& sum) {
  const GemmArgs& a = q.gemm;
  const uint16_t* row = static_cast<const uint16_t*>(a.a) + m * a.a_stride;
  const char* group = static_cast<const char*>(a.b) + panel * q8_panel_bytes(a.k);
  for (int32_t k0 = 0; k0 < a.k; k0 += kGroup, group += q8_group_bytes()) {
    const int8_t* v = reinterpret_cast<const int8_t*>(group);
    const uint16_t* scale = reinterpret_cast<const uint16_t*>(group + kGroup * kPanel);
    double dot[kPanel] = {};
    for (int32_t i = 0; i < kGroup && k0 + i < a.k; ++i) {
      const double x = bf16_to_f32(row[k0 + i]);
      for (int32_t c = 0; c < kPanel; ++c) dot[c] += x * v[i * kPanel + c];
    }
    for (int32_t c = 0; c < kPanel; ++c) sum[c] += dot[c] * double{bf16_to_f32(scale[c])};
  }
}

void sum_q4(const QuantGemmArgs& q, int32_t panel, int32_t m, Sums& sum) {
  const GemmArgs& a = q.gemm;
  const int32_t groups = num_groups(a.k, kGroup);
  const uint16_t* row = static_cast<const uint16_t*>(a.a) + m * a.a_stride;
  const char* offsets = static_cast<const char*>(a.b) + panel * q4_panel_bytes(a.k);
  for (int32_t g = 0; g < groups; ++g) {
    const uint16_t* offset = reinterpret_cast<const uint16_t*>(offsets) + g * kPanel;
    const char* group = offsets + int64_t{groups} * 2 * kPanel + g * q4_group_bytes();
    const uint32_t* words = reinterpret_cast<const uint32_t*>(group);
    const uint16_t* scale = reinterpret_cast<const uint16_t*>(group + kGroup / 2 * kPanel);
    double dot[kPanel] = {};
    for (int32_t i = 0; i < kGroup && g * kGroup + i < a.k; ++i) {
      const double x = bf16_to_f32(row[g * kGroup + i]);
      for (int32_t c = 0; c < kPanel; ++c) {
        dot[c] += x * (static_cast<int32_t>(words[i / 8 * kPanel + c] >> (i % 8 * 4) & 15u) - 8);
      }
    }
    const double sum_of_group = q.a_groups[int64_t{m} * groups + g];
    for (int32_t c = 0; c < kPanel; ++c) {
      sum[c] += dot[c] * double{bf16_to_f32(scale[c])} + sum_of_group * double{bf16_to_f32(offset[c])};
    }
  }
}

void sum_int8(const QuantGemmArgs& q, int32_t panel, int32_t m, Sums& sum) {
  const GemmArgs& a = q.gemm;
  const int32_t groups = num_groups(a.k, kGroupInt8);
  const int8_t* row = static_cast<const int8_t*>(a.a) + m * a.a_stride;
  const char* b = static_cast<const char*>(a.b) + panel * int8_panel_bytes(a.k);
  const float* scale = reinterpret_cast<const float*>(b + groups * int8_group_bytes());
  for (int32_t g = 0; g < groups; ++g) {
    const int8_t* v = reinterpret_cast<const int8_t*>(b + g * int8_group_bytes());
    const double row_scale = q.a_groups[int64_t{m} * groups + g];
    for (int32_t c = 0; c < kPanel; ++c) {
      int32_t dot = 0;
      for (int32_t i = 0; i < kGroupInt8; ++i) dot += row[g * kGroupInt8 + i] * v[(i / 4 * kPanel + c) * 4 + i % 4];
      sum[c] += row_scale * dot;
    }
  }
  for (int32_t c = 0; c < kPanel; ++c) sum[c] *= double{scale[c]};
}

template <void (*kSum)(const QuantGemmArgs&, int32_t, int32_t, Sums&)>
void gemm(const QuantGemmArgs& q) noexcept {
  const GemmArgs& a = q.gemm;
  for (int32_t panel = a.panel0; panel < a.panel1; ++panel) {
    for (int32_t m = a.m0; m < a.m1; ++m) {
      Sums sum = {};
      kSum(q, panel, m, sum);
      for (int32_t c = 0; c < kPanel && panel * kPanel + c < a.n; ++c) finish(a, m, panel * kPanel + c, sum[c]);
    }
  }
}

void group_sums(const GroupSumsArgs& a) noexcept {
  const int32_t groups = num_groups(a.k, kGroup);
  for (int32_t t = a.t0; t < a.t1; ++t) {
    for (int32_t g = 0; g < groups; ++g) {
      double sum = 0;
      for (int32_t k = g * kGroup; k < a.k && k < (g + 1) * kGroup; ++k) {
        sum += double{bf16_to_f32(a.x[t * a.x_stride + k])};
      }
      a.y[int64_t{t} * groups + g] = static_cast<float>(sum);
    }
  }
}

void quantize(const QuantizeArgs& a) noexcept {
  const int32_t groups = num_groups(a.k, kGroupInt8);
  for (int32_t t = a.t0; t < a.t1; ++t) {
    for (int32_t g = 0; g < groups; ++g) {
      const int32_t k0 = g * kGroupInt8, count = a.k - k0 < kGroupInt8 ? a.k - k0 : kGroupInt8;
      const int64_t at = int64_t{t} * groups + g;
      const uint16_t* x = a.x + t * a.x_stride + k0;
      int8_t* y = a.y + at * kGroupInt8;
      float most = 0;
      bool finite = true;
      for (int32_t i = 0; i < count; ++i) {
        most = std::fmax(most, std::fabs(bf16_to_f32(x[i])));
        finite = finite && std::isfinite(bf16_to_f32(x[i]));
      }
      const bool good = finite && most >= 0x1p-100f;
      const float inverse = 127 / most;
      a.sum[at] = 0;
      for (int32_t i = 0; i < kGroupInt8; ++i) {
        y[i] = static_cast<int8_t>(good && i < count ? std::lrint(bf16_to_f32(x[i]) * inverse) : 0);
        a.sum[at] += y[i];
      }
      a.scale[at] = good ? most / 127 : finite ? 0 : std::numeric_limits<float>::quiet_NaN();
    }
  }
}

}  // namespace

const QuantKernels kRefQuant = {gemm<sum_q8>, gemm<sum_q4>, gemm<sum_int8>, group_sums, quantize};

}  // namespace idefics::kernels
