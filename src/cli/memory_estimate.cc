#include "cli/memory_estimate.h"

#include <algorithm>

#include "engine/step_runner.h"

namespace idefics::cli {

MemoryEstimate estimate_memory(const Idefics3Config& config, const Checkpoint& checkpoint, Element dtype) {
  const KvCache::Shape shape = Network::kv_shape(config, dtype);
  EngineOptions options;
  options.max_num_seqs = 1;  // as `generate` and `chat` load it
  options.max_num_batched_tokens = std::min(options.max_num_batched_tokens, config.get_max_seq_len());
  const int64_t num_pages = (config.get_max_seq_len() + shape.page_size - 1) / shape.page_size;
  return {.weights = count_parameters(config, checkpoint).total() * dtype_bytes(dtype),
          .kv_per_1024_tokens = KvCache::page_bytes(shape) * 1024 / shape.page_size,
          .kv_full_context = KvCache::page_bytes(shape) * num_pages,
          .scratch = static_cast<int64_t>(StepRunner::scratch_bytes(config, dtype, options))};
}

Parameters count_parameters(const Idefics3Config& config, const Checkpoint& checkpoint) {
  const std::vector<std::string> unused = checkpoint.verify(config);
  Parameters out;
  for (const auto& [name, tensor] : checkpoint.tensors()) {
    if (std::find(unused.begin(), unused.end(), name) != unused.end()) continue;
    if (name == "lm_head.weight" && config.text_config.tie_word_embeddings) continue;
    const bool vision = name.starts_with("model.vision_model."), connector = name.starts_with("model.connector.");
    (vision ? out.vision : connector ? out.connector : out.text) += tensor.num_elements();
  }
  return out;
}

}  // namespace idefics::cli
