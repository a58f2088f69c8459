// Rotary position embedding: frequencies and angles.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "idefics/config.h"

namespace idefics {

// Inverse frequencies [D/2], D = head_dim:  inv_j = theta^(-2j/D), then the llama3 scaling if the config has one:
// with wavelength = 2 pi / inv_j and old = orig_max_position,
//   wavelength > old / low_freq_factor    inv_j / factor
//   wavelength < old / high_freq_factor   inv_j
//   between                               (1 - t) inv_j / factor + t inv_j,  t = (old / wavelength - low) / (high -
//   low)
// in float32 as in the reference. REQUIRES: head_dim even, theta > 0.
std::vector<float> rope_inv_freq(const Llama3Config& config);

// cos and sin [positions.size(), D/2] of tokens at `positions`: the angle is float(position) * inv_freq[j] in float32.
void rope_rows(std::span<const float> inv_freq, std::span<const int32_t> positions, std::span<float> cos,
               std::span<float> sin);

}  // namespace idefics
