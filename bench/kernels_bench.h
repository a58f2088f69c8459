// What the files of kernels_bench share.
#pragma once

#include <benchmark/benchmark.h>

namespace idefics::kernels {

struct Rates {
  double f32, bf16, int8, read;
};

// Of one thread; NaN where the level has no aim.
const Rates& peaks();

// Operations a second when there are any, else bytes a second, and their share of `peak`.
void report(benchmark::State& state, double flops, double bytes, double peak);

}  // namespace idefics::kernels
