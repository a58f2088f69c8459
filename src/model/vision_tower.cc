#include "model/vision_tower.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "model/kv_blocks.h"

namespace idefics {

namespace {

// The buffers of one tile, T = N N patches.
struct Scratch {
  Matrix<float> x, flat_patches;
  Activation patches, h, qkv, attn, mlp;
  ops::KvBlocks blocks;
  std::span<int32_t> limit;
  Scratch(Arena& arena, const Idefics3VisionConfig& c, Format format) {
    const int64_t N = c.image_size / c.patch_size, T = N * N, pixels = int64_t{3} * c.patch_size * c.patch_size;
    x = arena.take_matrix(T, c.hidden_size);
    // In bf16 they are rounded here rather than where they are read: the same values, half the memory to pass.
    qkv = arena.take_activation(format.input(), T, int64_t{3} * c.hidden_size);
    flat_patches = arena.take_matrix(T, pixels);
    patches = arena.take_activation(format, T, pixels);
    h = arena.take_activation(format, T, c.hidden_size);
    attn = arena.take_activation(format, T, c.hidden_size);
    mlp = arena.take_activation(format, T, c.intermediate_size);
    blocks = take_kv_blocks(arena, kv_type_of(format.input()), c.num_attention_heads, c.head_dim, T);
    limit = {arena.take_array<int32_t>(T), static_cast<size_t>(T)};
  }
};

// The `count` pixels of one channel from pixel (y, x) on.
void read_pixels(const TilePixels& pixels, int64_t side, int64_t channel, int64_t y, int64_t x, int64_t count,
                 float* out) {
  if (pixels.table == nullptr) {
    std::memcpy(out, pixels.planes.data() + (channel * side + y) * side + x,
                static_cast<size_t>(count) * sizeof(float));
    return;
  }
  const uint8_t* from = pixels.rgb.data() + (y * side + x) * 3 + channel;
  const float* table = pixels.table + channel * 256;
  for (int64_t i = 0; i < count; ++i) out[i] = table[from[3 * i]];
}

// patches[r N + c] = the pixels of patch (r, c) in the order channel, y, x; pixels beyond N p are ignored.
void gather_patches(const Exec& exec, const Idefics3VisionConfig& c, const TilePixels& pixels, Matrix<float> flat) {
  const int64_t side = c.image_size, p = c.patch_size, N = side / p;
  exec.pool.parallel_for(N * N, N, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      float* out = flat.row(t);
      for (int64_t channel = 0; channel < 3; ++channel) {
        for (int64_t y = 0; y < p; ++y, out += p) read_pixels(pixels, side, channel, t / N * p + y, t % N * p, p, out);
      }
    }
  });
}

void add_positions(const Exec& exec, int64_t N, ValidPatches valid, std::span<const float> position, Matrix<float> x) {
  exec.pool.parallel_for(x.rows(), 64, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const float* from = position.data() + position_of(t, N, valid) * x.cols();
      float* to = x.row(t);
      for (int64_t i = 0; i < x.cols(); ++i) to[i] += from[i];
    }
  });
}

// Bidirectional attention in which only the valid patches are keys. They lie at the top left, so row by row each run of
// valid.cols patches is stored behind the one before; keys that nobody may see are not stored at all.
void attend(const Exec& exec, const Idefics3VisionConfig& c, ValidPatches valid, const Scratch& s) {
  const int64_t D = c.hidden_size, N = c.image_size / c.patch_size;
  const Activation q = s.qkv.col_range(0, D), k = s.qkv.col_range(D, D), v = s.qkv.col_range(2 * D, D);
  if (valid.cols == N) {
    const ops::KvRows all{0, valid.rows * N, 0, s.blocks};
    ops::kv_store(exec, k, v, std::span(&all, 1));
  } else {
    for (int64_t r = 0; r < valid.rows; ++r) {
      const ops::KvRows run{r * N, valid.cols, r * valid.cols, s.blocks};
      ops::kv_store(exec, k, v, std::span(&run, 1));
    }
  }
  const float scale = 1.0f / std::sqrt(static_cast<float>(c.head_dim));
  const ops::KvRows queries{0, N * N, 0, s.blocks};
  ops::attention(exec, q, c.num_attention_heads, std::span(&queries, 1), s.limit, scale, s.attn);
}

}  // namespace

int64_t position_of(int64_t t, int64_t N, ValidPatches valid) {
  const int64_t row = t / N, col = t % N;
  if (row >= valid.rows || col >= valid.cols) return 0;
  return row * N / valid.rows * N + col * N / valid.cols;
}

void encode_tile(const Exec& exec, const Idefics3VisionConfig& config, const VisionWeights& weights,
                 const TilePixels& pixels, ValidPatches valid, Matrix<float> features, const Probe& probe) {
  const int64_t N = config.image_size / config.patch_size, T = N * N;
  const auto eps = static_cast<float>(config.layer_norm_eps);
  const int64_t values = pixels.table == nullptr ? std::ssize(pixels.planes) : std::ssize(pixels.rgb);
  IDEFICS_CHECK(values == int64_t{3} * config.image_size * config.image_size);
  IDEFICS_CHECK(valid.rows >= 1 && valid.rows <= N && valid.cols >= 1 && valid.cols <= N);

  ArenaScope scope(exec.arena);
  const Scratch s(exec.arena, config, weights.format);
  std::fill(s.limit.begin(), s.limit.end(), valid.rows * valid.cols);

  gather_patches(exec, config, pixels, s.flat_patches);
  ops::convert(exec, s.flat_patches, s.patches);     // patches [T, 3 p p]
  ops::matmul(exec, s.patches, weights.patch, s.x);  // x    [T, D]
  add_positions(exec, N, valid, weights.position, s.x);
  if (probe) probe("vision.embeddings", s.x);
  for (size_t i = 0; i < weights.layers.size(); ++i) {
    const VisionLayer& layer = weights.layers[i];
    ops::layer_norm(exec, s.x, layer.norm1_w, layer.norm1_b, eps, s.h);  // h    [T, D]
    ops::matmul(exec, s.h, layer.qkv, s.qkv);                            // qkv  [T, 3 D]
    attend(exec, config, valid, s);                                      // attn [T, D]
    ops::matmul_add(exec, s.attn, layer.out, s.x);
    ops::layer_norm(exec, s.x, layer.norm2_w, layer.norm2_b, eps, s.h);
    ops::matmul_gelu(exec, s.h, layer.fc1, s.mlp);  // mlp  [T, I]
    ops::matmul_add(exec, s.mlp, layer.fc2, s.x);
    if (probe) probe(fmt::format("vision.layer.{}", i), s.x);
  }
  const Activation out(features.data(), Element::kF32, T, features.cols(), features.stride());
  ops::layer_norm(exec, s.x, weights.post_norm_w, weights.post_norm_b, eps, out);
  if (probe) probe("vision.post_layernorm", features);
}

void plan_encode_tile(Arena& arena, const Idefics3VisionConfig& config, Format format) {
  ArenaScope scope(arena);
  Scratch(arena, config, format);
}

}  // namespace idefics
