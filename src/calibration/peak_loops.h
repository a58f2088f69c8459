// Loops of nothing but the instructions that a matrix product is made of.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace idefics {

struct PeakLoop {
  void (*run)(int64_t rounds);  // 1 or more; on registers only
  int64_t operations;           // of a round: products and sums
};

// What the kernels of a level compute with; nothing for an element type that the CPU or the level has no instruction
// for, and nothing at all for "ref".
struct PeakLoops {
  std::optional<PeakLoop> f32, bf16, int8;
};

// The loops of a level of this CPU. REQUIRES: kernels::find_table(level), which asks the system for the use of tiles.
PeakLoops peak_loops(std::string_view level);

}  // namespace idefics
