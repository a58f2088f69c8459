#include "cli/memory_estimate.h"

#include <algorithm>

#include "model/network.h"

namespace idefics::cli {

namespace {

constexpr int kPrefillChunk = 512;  // the default of EngineOptions

}  // namespace

MemoryEstimate estimate_memory(const Idefics3Config& config, const Checkpoint& checkpoint, Element dtype) {
  const KvCache::Shape shape = Network::kv_shape(config, dtype);
  const int64_t num_pages = (config.get_max_seq_len() + shape.page_size - 1) / shape.page_size;
  return {.weights = count_parameters(config, checkpoint).total() * dtype_bytes(dtype),
          .kv_per_1024_tokens = KvCache::page_bytes(shape) * 1024 / shape.page_size,
          .kv_full_context = KvCache::page_bytes(shape) * num_pages,
          .scratch = static_cast<int64_t>(
              Network::scratch_bytes(config, dtype, std::min(kPrefillChunk, config.get_max_seq_len()), num_pages, 1))};
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
