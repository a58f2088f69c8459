// The SigLIP encoder: one tile in, one feature row per patch out.
#pragma once

#include <span>
#include <vector>

#include "idefics/config.h"
#include "model/probe.h"
#include "tensor/ops.h"

namespace idefics {

struct VisionLayer {
  std::vector<float> norm1_w, norm1_b, norm2_w, norm2_b;  // [D]
  PackedMatrix qkv;                                       // [3 D, D]: q, k, v
  PackedMatrix out;                                       // [D, D]
  PackedMatrix fc1;                                       // [I, D]
  PackedMatrix fc2;                                       // [D, I]
};

// What vision tower and connector are packed in when the layers of the text tower are packed in `layers`. q8 and q4 are
// for decoding, which reads the text tower again for every token. A tile reads the vision tower once for a thousand
// rows: fewer bits save no time there and unpacking them costs some (q4 took twice as long as bf16), besides likeness.
inline Format picture_format(Format layers) {
  return layers == Format::kQ8 || layers == Format::kQ4 ? Format(Format::kBf16) : layers;
}

struct VisionWeights {
  Format format = Element::kF32;  // of the layers
  PackedMatrix patch;             // [D, 3 p p], columns (channel, y, x)
  std::vector<float> position;    // [N N, D]
  std::vector<VisionLayer> layers;
  std::vector<float> post_norm_w, post_norm_b;  // [D]
};

// The part of a tile that is picture and not padding, in patches from the top left. Patches outside are computed, but
// no patch attends to them.
struct ValidPatches {
  int rows, cols;
};

// What there is to encode: normalised pixels, or the bytes of a picture and what each becomes.
struct TilePixels {
  TilePixels(std::span<const float> normalised) : planes(normalised) {}
  TilePixels(std::span<const uint8_t> bytes, std::span<const float, 768> values) : rgb(bytes), table(values.data()) {}

  std::span<const float> planes;  // [3, image_size, image_size], or empty
  std::span<const uint8_t> rgb;   // [image_size, image_size, 3], if so
  const float* table = nullptr;   // [3, 256] value of each byte in each channel
};

// The row of the position table for patch t (row by row) of a grid of N x N: (floor(r N / rows), floor(c N / cols)) for
// patch (r, c) of the valid ones, 0 for those outside.
int64_t position_of(int64_t t, int64_t N, ValidPatches valid);

// Encodes one tile.
//   features  [N N, D] float32, N = image_size div patch_size, patches row by row
// Scratch comes from exec.arena and does not depend on the number of tiles. Positions of a partly valid tile:
// floor(i N / n) for i < n valid rows (columns), 0 for patches outside.
void encode_tile(const Exec& exec, const Idefics3VisionConfig& config, const VisionWeights& weights,
                 const TilePixels& pixels, ValidPatches valid, Matrix<float> features, const Probe& probe);

// Takes from a measuring arena what encode_tile takes.
void plan_encode_tile(Arena& arena, const Idefics3VisionConfig& config, Format format);

}  // namespace idefics
