// The name that the reference gives to the pixels of a tile.
#pragma once

#include <cstdint>
#include <optional>

#include "idefics/tensor.h"

namespace idefics {

// XXH3-64 (seed 0) of the tensor's bytes, as a signed number. Nothing for 240 bytes or less, which the algorithm treats
// otherwise: that is a tile of 4 x 4 pixels. It tells tiles apart, but not safely against somebody who makes
// collisions: Engine's caches use SHA-256.
std::optional<int64_t> hash_image(const Tensor& pixels);

}  // namespace idefics
