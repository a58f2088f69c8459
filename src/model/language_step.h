// One step of the language model: ids and features in, logits out.
#pragma once

#include <span>

#include "idefics/config.h"
#include "model/network.h"

namespace idefics {

// Features that take the place of embedded tokens: row k goes to row indices[k] of the step. Features with an index
// outside [0, T) are dropped; of equal indices the last one counts.
struct ImageRows {
  Matrix<const float> embeddings;    // [P, E]
  std::span<const int32_t> indices;  // [P]
};

// Letters: T tokens of all sequences, R rows with logits, E text width, V vocabulary.
struct LanguageStep {
  std::span<const int32_t> tokens;          // [T], each below V
  std::span<const SequenceRows> sequences;  // their rows cover 0 .. T - 1, in order
  std::span<const ImageRows> images;        // as many pieces as the caller has: one for each tile, say
  std::span<const int32_t> logit_rows;      // [R], any rows; may be empty
};

// Embeds the tokens, merges the features, runs the layers over pages of `cache`, and computes the logits of
// `logit_rows`. The same bytes for a row whatever else is in the step. Allocates nothing: `exec.arena` must hold
// Network::scratch_bytes for T rows, the pages of the longest sequence and R logit rows.
//   x       [T, E] working memory: afterwards the hidden states before the final norm
//   logits  [R, V]
// The probe sees "merged", "text.layer.i" and, when there are logit rows, "text.norm" and "logits".
void run_language_step(const Network& network, const Exec& exec, const LanguageStep& step, KvCache& cache,
                       Matrix<float> x, Matrix<float> logits, const Probe& probe = {});

// How many of the last rows of a sequence of `num_rows` active tokens get logits. `n` counts for kVariable only.
int32_t num_logit_rows(ReturnLogits mode, int32_t num_rows, int64_t n);

}  // namespace idefics
