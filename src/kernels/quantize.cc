// From weights to quantised panels (kernels/table.h). Compiled for the baseline CPU, and in loops that a compiler can
// turn into vectors: a start must not wait for this.
#include <string.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/half.h"
#include "kernels/packing.h"

namespace idefics::kernels {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kLeast = 0x1p-100f;  // a group of smaller weights is a group of zeros

// Elements [k, k + count) of a row of the weight, widened.
void read_row(const PackArgs& a, int64_t row, int32_t k, int32_t count, float* out) {
  const int64_t at = row * a.w_stride + k;
  if (a.w_dtype == DType::kF32) {
    memcpy(out, static_cast<const char*>(a.w) + at * 4, static_cast<size_t>(count) * 4);
    return;
  }
  const char* from = static_cast<const char*>(a.w) + at * 2;
  for (int32_t i = 0; i < count; ++i) {
    uint16_t bits;
    memcpy(&bits, from + 2 * i, sizeof bits);
    const uint32_t word = uint32_t{bits} << 16;
    memcpy(out + i, &word, sizeof word);
  }
}

// The nearest integer to a float of at most 2^21, ties to even: adding 1.5 * 2^23 rounds it into the low bits. That is
// one addition where lrintf, without SSE4, is a call.
inline int32_t nearest(float x) { return std::bit_cast<int32_t>(x + 0x1.8p23f) - 0x4b400000; }

// The largest |x|; NaN when one of them is NaN or Inf.
float most_of(const float* x, int32_t count) {
  uint32_t most = 0;  // the bits of floats of one sign have the order of their values
  for (int32_t i = 0; i < count; ++i) most = std::max(most, std::bit_cast<uint32_t>(x[i]) & 0x7fffffffu);
  return most < 0x7f800000u ? std::bit_cast<float>(most) : kNan;
}

float rounded(float x) { return bf16_to_f32(f32_to_bf16(x)); }

// v = w / scale, from -127 to 127
uint16_t quantize_q8(const float* w, int32_t count, int8_t* v) {
  const float most = most_of(w, count);
  if (!(most >= kLeast)) {  // NaN, or next to nothing
    memset(v, 0, kGroup);
    return f32_to_bf16(most != most ? kNan : 0.0f);
  }
  const float scale = rounded(most / 127), inverse = 1 / scale;
  for (int32_t i = 0; i < kGroup; ++i) {
    v[i] = static_cast<int8_t>(i < count ? std::clamp(nearest(w[i] * inverse), -127, 127) : 0);
  }
  return f32_to_bf16(scale);
}

struct Q4Group {
  uint16_t scale, offset;
};

// v = (w - offset) / scale + 8, from 0 to 15: the offset is in the middle, where it loses least when it is rounded.
Q4Group quantize_q4(const float* w, int32_t count, uint8_t* v) {
  memset(v, 8, kGroup);
  if (most_of(w, count) != most_of(w, count)) return {f32_to_bf16(kNan), f32_to_bf16(kNan)};
  float low = w[0], high = w[0];
  for (int32_t i = 1; i < count; ++i) {
    low = std::min(low, w[i]);
    high = std::max(high, w[i]);
  }
  const float scale = rounded(high / 15 - low / 15);
  const float offset = rounded(low + 8 * scale);
  if (!(scale >= kLeast)) return {0, f32_to_bf16(low)};
  const float inverse = 1 / scale;
  for (int32_t i = 0; i < count; ++i) {
    v[i] = static_cast<uint8_t>(std::clamp(nearest((w[i] - offset) * inverse) + 8, 0, 15));
  }
  return {f32_to_bf16(scale), f32_to_bf16(offset)};
}

struct Q8Panel {
  char* data;
  int32_t groups;
  int8_t* values(int32_t g) const { return reinterpret_cast<int8_t*>(data + g * q8_group_bytes()); }
  uint16_t* scale(int32_t g) const { return reinterpret_cast<uint16_t*>(values(g) + kGroup * kPanel); }
};
struct Q4Panel {
  char* data;
  int32_t groups;
  uint16_t* offset(int32_t g) const { return reinterpret_cast<uint16_t*>(data) + g * kPanel; }
  uint32_t* words(int32_t g) const {
    return reinterpret_cast<uint32_t*>(data + int64_t{groups} * 2 * kPanel + g * q4_group_bytes());
  }
  uint16_t* scale(int32_t g) const { return reinterpret_cast<uint16_t*>(words(g) + kGroup / 8 * kPanel); }
};
struct Int8Panel {
  char* data;
  int32_t groups;
  int8_t* values(int32_t g) const { return reinterpret_cast<int8_t*>(data + g * int8_group_bytes()); }
  float* scale() const { return reinterpret_cast<float*>(values(groups)); }
};

void pack_q8(const PackArgs& a, int32_t n, Q8Panel panel) {
  const int32_t column = n % kPanel;
  for (int32_t g = 0; g < panel.groups; ++g) {
    const int32_t k = g * kGroup, count = std::min(kGroup, a.k - k);
    float w[kGroup];
    int8_t v[kGroup] = {};
    uint16_t scale = 0;
    if (n < a.n1) {
      read_row(a, n - a.n0, k, count, w);
      scale = quantize_q8(w, count, v);
    }
    int8_t* to = panel.values(g) + column;
    for (int32_t i = 0; i < kGroup; ++i) to[i * kPanel] = v[i];
    panel.scale(g)[column] = scale;
  }
}

void pack_q4(const PackArgs& a, int32_t n, Q4Panel panel) {
  const int32_t column = n % kPanel;
  for (int32_t g = 0; g < panel.groups; ++g) {
    const int32_t k = g * kGroup, count = std::min(kGroup, a.k - k);
    float w[kGroup];
    uint8_t v[kGroup] = {};
    Q4Group group = {0, 0};
    if (n < a.n1) {
      read_row(a, n - a.n0, k, count, w);
      group = quantize_q4(w, count, v);
    }
    for (int32_t i = 0; i < kGroup / 8; ++i) {
      uint32_t word = 0;
      for (int32_t j = 0; j < 8; ++j) word |= uint32_t{v[8 * i + j]} << (4 * j);
      panel.words(g)[i * kPanel + column] = word;
    }
    panel.scale(g)[column] = group.scale;
    panel.offset(g)[column] = group.offset;
  }
}

void pack_int8(const PackArgs& a, int32_t n, Int8Panel panel) {
  const int32_t column = n % kPanel;
  float w[kGroupInt8], most = 0;
  for (int32_t k = 0; n < a.n1 && k < a.k; k += kGroupInt8) {
    const int32_t count = std::min(kGroupInt8, a.k - k);
    read_row(a, n - a.n0, k, count, w);
    const float here = most_of(w, count);
    most = here <= most ? most : here;  // NaN, once there, stays
    if (most != most) break;
  }
  const bool good = most >= kLeast;
  const float scale = most / 127, inverse = 1 / scale;
  for (int32_t g = 0; g < panel.groups; ++g) {
    const int32_t k = g * kGroupInt8, count = std::min(kGroupInt8, a.k - k);
    int8_t v[kGroupInt8] = {};
    if (n < a.n1 && good) {
      read_row(a, n - a.n0, k, count, w);
      for (int32_t i = 0; i < count; ++i) {
        v[i] = static_cast<int8_t>(std::clamp(nearest(w[i] * inverse), -127, 127));
      }
    }
    int8_t* to = panel.values(g) + column * 4;
    for (int32_t i = 0; i < kGroupInt8; i += 4) memcpy(to + i * kPanel, v + i, 4);
  }
  panel.scale()[column] = most != most ? kNan : good ? scale : 0;
}

}  // namespace

void pack_quantized(const PackArgs& a) {
  const int32_t end = a.n1 == a.n ? num_panels(a.n) * kPanel : a.n1;  // with the columns beyond N
  for (int32_t n = a.n0; n < end; ++n) {
    const int64_t panel = n / kPanel;
    char* data = static_cast<char*>(a.packed);
    switch (a.format) {
      case Format::kQ8: pack_q8(a, n, {data + panel * q8_panel_bytes(a.k), num_groups(a.k, kGroup)}); break;
      case Format::kQ4: pack_q4(a, n, {data + panel * q4_panel_bytes(a.k), num_groups(a.k, kGroup)}); break;
      default: pack_int8(a, n, {data + panel * int8_panel_bytes(a.k), num_groups(a.k, kGroupInt8)});
    }
  }
}

void unpack_column(const void* packed, Format format, int32_t k, int32_t n, float* out) {
  char* data = static_cast<char*>(const_cast<void*>(packed));
  const int64_t panel = n / kPanel;
  const int32_t c = n % kPanel;
  switch (format) {
    case Format::kF32: {
      const float* p = static_cast<const float*>(packed) + panel * k * kPanel + c;
      for (int32_t i = 0; i < k; ++i) out[i] = p[int64_t{i} * kPanel];
      return;
    }
    case Format::kBf16: {
      const uint16_t* p = static_cast<const uint16_t*>(packed) + panel * (k + k % 2) * kPanel + 2 * c;
      for (int32_t i = 0; i < k; ++i) out[i] = bf16_to_f32(p[int64_t{i / 2} * kPanel * 2 + i % 2]);
      return;
    }
    case Format::kQ8: {
      const Q8Panel p = {data + panel * q8_panel_bytes(k), num_groups(k, kGroup)};
      for (int32_t i = 0; i < k; ++i) {
        const int32_t g = i / kGroup;
        out[i] = bf16_to_f32(p.scale(g)[c]) * static_cast<float>(p.values(g)[i % kGroup * kPanel + c]);
      }
      return;
    }
    case Format::kQ4: {
      const Q4Panel p = {data + panel * q4_panel_bytes(k), num_groups(k, kGroup)};
      for (int32_t i = 0; i < k; ++i) {
        const int32_t g = i / kGroup, j = i % kGroup;
        const auto v = static_cast<int32_t>(p.words(g)[j / 8 * kPanel + c] >> (j % 8 * 4) & 15u);
        out[i] = bf16_to_f32(p.scale(g)[c]) * static_cast<float>(v - 8) + bf16_to_f32(p.offset(g)[c]);
      }
      return;
    }
    case Format::kInt8: {
      const Int8Panel p = {data + panel * int8_panel_bytes(k), num_groups(k, kGroupInt8)};
      for (int32_t i = 0; i < k; ++i) {
        const int32_t j = i % kGroupInt8;
        out[i] = p.scale()[c] * static_cast<float>(p.values(i / kGroupInt8)[(j / 4 * kPanel + c) * 4 + j % 4]);
      }
      return;
    }
  }
}

}  // namespace idefics::kernels
