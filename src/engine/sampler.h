// Chooses the next token from logits.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "idefics/sampling.h"

namespace idefics {

// Refuses parameters out of range: Error{kInvalidValue} naming the parameter, its value and its range.
void check_sampling(const SamplingParams& params, int vocab_size);

// What the choosing of tokens needs besides logits, so that a step allocates nothing. One serves many samplers, one at
// a time.
struct SamplerScratch {
  explicit SamplerScratch(int vocab_size);
  std::vector<int32_t> count;  // [V] occurrences, zero between calls
  std::vector<int32_t> order;  // [V] ids, for sorting
  std::vector<float> sorted;   // [V]
};

// The choice for one sequence.
// Threads: one owner of a sampler and its scratch.
class Sampler {
 public:
  // `eos` are the ids that min_tokens holds back. `seed` makes draws repeatable: draw number i depends on (seed, i)
  // only.
  // `scratch` must live as long.
  Sampler(const SamplingParams& params, std::vector<int32_t> eos, uint64_t seed, SamplerScratch& scratch);

  // `prompt` and `generated`: all token ids so far. `logits` [V] are changed in place. Throws Error{kNumeric} when a
  // logit is NaN or +Inf, and Error{kInvalidValue} when the parameters leave no token to choose.
  int32_t choose(std::span<const int32_t> prompt, std::span<const int32_t> generated, std::span<float> logits);

  // The two halves, for tests. After `warp`, excluded tokens are -infinity and softmax(logits) is what is drawn from.
  void penalize(std::span<const int32_t> prompt, std::span<const int32_t> generated, std::span<float> logits);
  void warp(std::span<float> logits);

 private:
  void keep_top_k(std::span<float> logits);
  void keep_top_p(std::span<float> logits);
  void keep_min_p(std::span<float> logits);
  int32_t draw(std::span<const float> logits, uint64_t number) const;

  SamplingParams params_;
  std::vector<int32_t> eos_;
  uint64_t seed_;
  SamplerScratch* scratch_;
};

}  // namespace idefics
