// From patches of the vision tower to tokens of the text tower.
#pragma once

#include "model/probe.h"
#include "tensor/ops.h"

namespace idefics {

// Gathers blocks of s x s patches, then projects: features[R n/s + C] = W row, row = concatenation over (dy, dx) of
// patches[(R s + dy) n + C s + dx].
//   patches   [n n, D] float32        projection [H, D s s], no bias
//   features  [n n / (s s), H] float32
void connect(const Exec& exec, int scale_factor, const PackedMatrix& projection, Matrix<const float> patches,
             Matrix<float> features);

// Takes from a measuring arena what connect takes for `num_patches` patches of `width` values.
void plan_connect(Arena& arena, int scale_factor, Format format, int64_t num_patches, int64_t width);

}  // namespace idefics
