// The Llama decoder: token rows in, hidden rows out, keys and values into the cache.
#pragma once

#include <span>
#include <vector>

#include "idefics/config.h"
#include "model/kv_cache.h"
#include "model/probe.h"
#include "tensor/ops.h"

namespace idefics {

struct TextLayer {
  std::vector<float> attn_norm, mlp_norm;  // [E]
  PackedMatrix qkv;                        // [(H + 2 G) D, E]
  PackedMatrix o;                          // [E, H D]
  PackedMatrix gate_up;                    // [2 I, E]
  PackedMatrix down;                       // [E, I]
};

// What the head is packed in when the layers are packed in `layers`. All logits come straight out of it: in q4 it
// raised the perplexity of SmolLM2 by 5.2 % instead of 0.3, in int8 by 1.2 % instead of 0.7.
inline Format head_format(Format layers) { return layers.quantized() ? Format(Format::kQ8) : layers; }

struct TextWeights {
  Format format = Element::kF32;  // of the layers
  PackedMatrix embedding;         // [V, E], empty when the head's rows are the embeddings
  std::vector<TextLayer> layers;
  std::vector<float> norm;      // [E]
  PackedMatrix head;            // [V, E]
  std::vector<float> inv_freq;  // [D/2] of the rotation of queries and keys
};

// Consecutive rows of a step that belong to one sequence.
struct SequenceRows {
  int32_t first_row, num_rows;
  int32_t context;                // tokens of the sequence that are in the cache already
  std::span<const PageId> pages;  // enough for context + num_rows tokens
};

// One step over a ragged batch.
//   x  [T, E] float32: embeddings in, hidden states (before the final norm) out
// A sequence's rows attend to its own tokens only, each to itself and those before.
void run_text_layers(const Exec& exec, const Llama3Config& config, const TextWeights& weights,
                     std::span<const SequenceRows> sequences, KvCache& cache, Matrix<float> x, const Probe& probe);

// logits[r] = head(norm(x[rows[r]])).   Shapes: x [T, E], rows [R], logits [R, V] float32.
void run_head(const Exec& exec, const Llama3Config& config, const TextWeights& weights, Matrix<const float> x,
              std::span<const int32_t> rows, Matrix<float> logits, const Probe& probe);

// Take from a measuring arena what the two passes take.
void plan_text_layers(Arena& arena, const Llama3Config& config, Format format, const KvCache::Shape& kv,
                      int64_t max_rows, int64_t max_pages);
void plan_head(Arena& arena, const Llama3Config& config, Format format, int64_t max_rows);

}  // namespace idefics
