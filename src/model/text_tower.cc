#include "model/text_tower.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "checkpoint/rope.h"

namespace idefics {

namespace {

// The buffers of one step of T rows.
struct Scratch {
  Matrix<float> qkv, gate_up, cos, sin;
  Activation h, attn, mlp;
  std::span<int32_t> pos;          // [T] index of a row in its own sequence
  std::span<int32_t> limit;        // [T] how many tokens a row sees, itself included
  std::span<int32_t> row;          // [T] 0, 1, 2, ..: the row of cos and sin of a row
  std::span<ops::KvRows> kv_rows;  // one for each sequence, of which none has less than a row
  Scratch(Arena& arena, const Llama3Config& c, Format format, int64_t T) {
    const int64_t D = c.head_dim, H = c.num_attention_heads, G = c.num_key_value_heads;
    qkv = arena.take_matrix(T, (H + 2 * G) * D);
    gate_up = arena.take_matrix(T, int64_t{2} * c.intermediate_size);
    cos = arena.take_matrix(T, D / 2);
    sin = arena.take_matrix(T, D / 2);
    h = arena.take_activation(format, T, c.hidden_size);
    attn = arena.take_activation(format, T, H * D);
    mlp = arena.take_activation(format, T, c.intermediate_size);
    pos = {arena.take_array<int32_t>(T), static_cast<size_t>(T)};
    limit = {arena.take_array<int32_t>(T), static_cast<size_t>(T)};
    row = {arena.take_array<int32_t>(T), static_cast<size_t>(T)};
    kv_rows = {arena.take_array<ops::KvRows>(T), static_cast<size_t>(T)};
  }
};

// The rotation of each row, for all layers of the step. Tables of all positions would take half a second and 67 MB for
// 131072 positions; these take 2 us a row.
void rotate_rows(const Exec& exec, std::span<const float> inv_freq, const Scratch& s) {
  std::iota(s.row.begin(), s.row.end(), 0);
  exec.pool.parallel_for(std::ssize(s.pos), 16, [&](int64_t begin, int64_t end) {
    const size_t half = inv_freq.size(), count = static_cast<size_t>(end - begin) * half;
    rope_rows(inv_freq, s.pos.subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin)),
              {s.cos.row(begin), count}, {s.sin.row(begin), count});
  });
}

// The tables of block addresses of several sequences are in memory together when they have at most so many pages.
constexpr int64_t kTablePages = 512;

// How many of these sequences, which are not none, may have their tables in memory together.
size_t count_fitting(std::span<const SequenceRows> sequences) {
  size_t count = 1;
  for (auto pages = std::ssize(sequences[0].pages); count < sequences.size(); ++count) {
    pages += std::ssize(sequences[count].pages);
    if (pages > kTablePages) break;
  }
  return count;
}

// Stores the keys and values of all rows in a layer's part of the cache, then attends: one region each for as many
// sequences as possible, since a step may have many of one row.
void attend(const Exec& exec, const Activation& q, const Activation& k, const Activation& v,
            std::span<const SequenceRows> sequences, const KvCache& cache, int layer, const Scratch& s) {
  const int D = cache.shape().head_dim;
  const float scale = 1.0f / std::sqrt(static_cast<float>(D));
  while (!sequences.empty()) {
    ArenaScope tables(exec.arena);
    const auto some = sequences.first(count_fitting(sequences));
    size_t count = 0;
    for (const SequenceRows& rows : some) {
      if (rows.num_rows == 0) continue;
      s.kv_rows[count++] = {rows.first_row, rows.num_rows, rows.context, cache.blocks(exec.arena, layer, rows.pages)};
    }
    ops::kv_store(exec, k, v, s.kv_rows.first(count));
    ops::attention(exec, q, static_cast<int>(q.cols() / D), s.kv_rows.first(count), s.limit, scale, s.attn);
    sequences = sequences.subspan(some.size());
  }
}

struct HeadScratch {
  Matrix<float> picked, norm;
  Activation h;
  HeadScratch(Arena& arena, const Llama3Config& c, Format format, int64_t R) {
    picked = arena.take_matrix(R, c.hidden_size);
    norm = arena.take_matrix(R, c.hidden_size);
    h = arena.take_activation(format, R, c.hidden_size);
  }
};

}  // namespace

void run_text_layers(const Exec& exec, const Llama3Config& config, const TextWeights& weights,
                     std::span<const SequenceRows> sequences, KvCache& cache, Matrix<float> x, const Probe& probe) {
  const int64_t T = x.rows(), D = config.head_dim, H = config.num_attention_heads, G = config.num_key_value_heads;
  const auto eps = static_cast<float>(config.rms_norm_eps);
  ArenaScope scope(exec.arena);
  const Scratch s(exec.arena, config, weights.format, T);
  const Matrix<float> q = s.qkv.col_range(0, H * D), k = s.qkv.col_range(H * D, G * D),
                      v = s.qkv.col_range((H + G) * D, G * D);

  for (const SequenceRows& rows : sequences) {
    for (int32_t i = 0; i < rows.num_rows; ++i) {
      s.pos[static_cast<size_t>(rows.first_row + i)] = rows.context + i;
      s.limit[static_cast<size_t>(rows.first_row + i)] = rows.context + i + 1;
    }
  }
  rotate_rows(exec, weights.inv_freq, s);

  for (size_t i = 0; i < weights.layers.size(); ++i) {
    const TextLayer& layer = weights.layers[i];
    const bool last = i + 1 == weights.layers.size();
    ops::expect(exec, layer.o);
    ops::rms_norm(exec, x, layer.attn_norm, eps, s.h);  // h       [T, E]
    ops::matmul(exec, s.h, layer.qkv, s.qkv);           // qkv     [T, (H + 2 G) D]
    ops::rope(exec, q, static_cast<int>(H), s.cos, s.sin, s.row);
    ops::rope(exec, k, static_cast<int>(G), s.cos, s.sin, s.row);
    attend(exec, q, k, v, sequences, cache, static_cast<int>(i), s);  // attn    [T, H D]
    ops::expect(exec, layer.gate_up);
    ops::matmul_add(exec, s.attn, layer.o, x);  // x      += attn o
    ops::rms_norm(exec, x, layer.mlp_norm, eps, s.h);
    ops::expect(exec, layer.down);
    ops::matmul(exec, s.h, layer.gate_up, s.gate_up);  // gate_up [T, 2 I]
    ops::swiglu(exec, s.gate_up, s.mlp);               // mlp     [T, I]
    ops::expect(exec, last ? weights.head : weights.layers[i + 1].qkv);
    ops::matmul_add(exec, s.mlp, layer.down, x);  // x      += mlp down
    if (probe) probe(fmt::format("text.layer.{}", i), x);
  }
}

void run_head(const Exec& exec, const Llama3Config& config, const TextWeights& weights, Matrix<const float> x,
              std::span<const int32_t> rows, Matrix<float> logits, const Probe& probe) {
  const auto R = static_cast<int64_t>(rows.size()), E = x.cols();
  IDEFICS_CHECK(logits.rows() == R && logits.cols() == weights.head.n());
  ArenaScope scope(exec.arena);
  const HeadScratch s(exec.arena, config, weights.head.format(), R);
  for (int64_t r = 0; r < R; ++r)
    std::memcpy(s.picked.row(r), x.row(rows[static_cast<size_t>(r)]), static_cast<size_t>(E) * sizeof(float));
  const auto eps = static_cast<float>(config.rms_norm_eps);
  ops::rms_norm(exec, s.picked, weights.norm, eps, s.h);
  if (probe) {
    ops::rms_norm(exec, s.picked, weights.norm, eps, Activation(s.norm.data(), Element::kF32, R, E, E));
    probe("text.norm", s.norm);
  }
  ops::matmul(exec, s.h, weights.head, logits);
  if (probe) probe("logits", logits);
}

void plan_text_layers(Arena& arena, const Llama3Config& config, Format format, const KvCache::Shape& kv,
                      int64_t max_rows, int64_t max_pages) {
  ArenaScope scope(arena);
  Scratch(arena, config, format, max_rows);
  KvCache::plan_blocks(arena, kv, std::max(max_pages, kTablePages));
  arena.take(static_cast<size_t>(max_rows) * KvCache::kTableSlack);  // at most so many sequences
}

void plan_head(Arena& arena, const Llama3Config& config, Format format, int64_t max_rows) {
  ArenaScope scope(arena);
  HeadScratch(arena, config, head_format(format), max_rows);
}

}  // namespace idefics
