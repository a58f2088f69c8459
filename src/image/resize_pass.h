// One pass of a resize: weighted sums of bytes along one axis. Inside this room only; image/resize.h is the way in.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace idefics {

// Fraction bits of a weight: 32 less 8 of the pixel and 2 for overshoot.
constexpr int kWeightBits = 22;

// The weights of one axis: output x is the sum over i < windows[x].count of weights[x * taps + i] *
// input[windows[x].first + i], plus one half, shifted down by kWeightBits, clamped to a byte.
struct Axis {
  struct Window {
    int first, count;  // count may be 0 only when nothing is in reach; then the output is 0
  };
  std::vector<Window> windows;   // one per output
  std::vector<int32_t> weights;  // [outputs, taps]; |weight| < 2^27
  int taps = 0;                  // at least the largest count
};

// RGB rows [rows, in_width, 3] to [rows, axis.windows.size(), 3].
void horizontal_pass(const Axis& axis, const uint8_t* in, int in_width, int rows, uint8_t* out);
// Rows of `row_bytes` bytes [in_height, row_bytes] to [axis.windows.size(), row_bytes].
void vertical_pass(const Axis& axis, const uint8_t* in, size_t row_bytes, uint8_t* out);

}  // namespace idefics
