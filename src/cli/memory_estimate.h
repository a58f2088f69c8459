// How much memory a model needs, from its headers alone.
#pragma once

#include <cstdint>

#include "checkpoint/checkpoint.h"
#include "idefics/config.h"
#include "tensor/view.h"

namespace idefics::cli {

struct MemoryEstimate {
  int64_t weights;                   // bytes; without the padding of small matrices
  int64_t kv_per_1024_tokens;        // bytes
  int64_t kv_full_context, scratch;  // bytes, as Engine::load asks for them
  int64_t total() const { return weights + kv_full_context + scratch; }
};

// REQUIRES: `config` is finalized with this checkpoint.
MemoryEstimate estimate_memory(const Idefics3Config& config, const Checkpoint& checkpoint, Format format);

struct Parameters {
  int64_t vision = 0, connector = 0, text = 0;  // a tied head counts once
  int64_t total() const { return vision + connector + text; }
};
Parameters count_parameters(const Idefics3Config& config, const Checkpoint& checkpoint);

}  // namespace idefics::cli
