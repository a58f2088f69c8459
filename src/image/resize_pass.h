// One pass of a resize: weighted sums of bytes along one axis. Inside this room only; image/resize.h is the way in.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "image/resize_loops.h"
#include "image/row_chain.h"

namespace idefics {

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

// The fastest loops that this CPU can run, or null where there are none.
const ResizeLoops* fastest_loops();

// Along the rows: output rows [first, first + count) from the same input rows. Without `loops` in plain C++.
std::unique_ptr<const RowPass> horizontal_pass(const Axis& axis, int in_width, int height,
                                               const ResizeLoops* loops = fastest_loops());
// Along the columns: an output row from the rows of its window.
std::unique_ptr<const RowPass> vertical_pass(Axis axis, int width, const ResizeLoops* loops = fastest_loops());

}  // namespace idefics
