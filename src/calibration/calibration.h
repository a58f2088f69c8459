// What this machine can do at most: the aim that a measured speed is a share of.
#pragma once

#include <optional>

#include "kernels/table.h"

namespace idefics {

// Per second. A product and a sum are two operations.
struct Peaks {
  std::optional<double> f32_flops = {}, bf16_flops = {},
                        int8_ops = {};  // nothing where the level has no instructions for it
  double read_bytes = 0;                // plain reading of a memory that is far larger than the caches of a core
};

struct Calibration {
  int threads = 1;
  Peaks one = {};  // of one thread that is alone
  Peaks all = {};  // of `threads` threads together, which share units, clock and memory
};

// Computes and reads for about a second, with the instructions of `table`'s level. Takes the best of several tries:
// whatever else the machine does makes a try slower, never faster.
// Takes 512 MiB of memory for that time. Errors: kOutOfMemory.
Calibration calibrate(const kernels::Table& table, int threads);

}  // namespace idefics
