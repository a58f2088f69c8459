// How the next token is chosen.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace idefics {

// Parameters of one request. The defaults choose greedily: the token with the largest logit.
//
// Order of effects on the logits, as in the reference: logit_bias, repetition_penalty, no_repeat_ngram_size,
// min_tokens, presence and frequency penalty; and only when drawing (temperature above 0): temperature, top_k, top_p,
// min_p.
struct SamplingParams {
  double temperature = 0;         // 0: greedy; otherwise logits are divided by it
  int top_k = 0;                  // 0: off; tokens below the k-th largest logit fall (ties with it stay)
  double top_p = 1;               // smallest set whose probability exceeds p; 1 and above: off
  double min_p = 0;               // tokens below min_p times the largest probability fall, [0, 1]
  double repetition_penalty = 1;  // above 0; over prompt and generated tokens
  double presence_penalty = 0;    // subtracted once from every token that was generated
  double frequency_penalty = 0;   // subtracted once per occurrence
  int no_repeat_ngram_size = 0;   // 0: off
  std::vector<std::pair<int32_t, double>> logit_bias = {};  // token id, added to its logit
  std::optional<uint64_t> seed = std::nullopt;              // the same seed gives the same text; none: a fresh one

  int max_tokens = 0;       // 0: as many as the context holds
  int min_tokens = 0;       // stop tokens cannot be chosen before
  bool ignore_eos = false;  // the model's own stop tokens do not stop
  std::vector<int32_t> stop_token_ids = {};
  std::vector<std::string> stop = {};  // strings that end the text; they are not part of it
};

}  // namespace idefics
