#include "cli/memory_estimate.h"

#include <algorithm>

#include "model/text_tower.h"
#include "model/vision_tower.h"

namespace idefics::cli {

namespace {

constexpr int kPrefillChunk = 512;  // the default of EngineOptions

KvCache::Shape kv_shape(const Idefics3Config& config, Element dtype) {
  const KVCacheParams& p = config.get_kv_params();
  return {dtype, p.num_layers, p.n_kv_heads, p.head_dim, p.page_size};
}

// Takes what the passes take (Network::scratch_bytes), without weights.
int64_t scratch_bytes(const Idefics3Config& config, Element dtype, int64_t num_pages) {
  const Idefics3VisionConfig& v = config.vision_config;
  const int64_t side = v.image_size / v.patch_size, patches = side * side;
  const int64_t blocks = config.image_seq_len(), block_width = patches / blocks * v.hidden_size;
  Arena tile;
  tile.take_matrix(patches, v.hidden_size);
  plan_encode_tile(tile, v, dtype);
  Arena connector;
  connector.take_matrix(patches, v.hidden_size);
  connector.take_matrix(blocks, block_width);
  connector.take_activation(dtype, blocks, block_width);
  Arena text;
  const int64_t rows = std::min(kPrefillChunk, config.get_max_seq_len());
  plan_text_layers(text, config.text_config, kv_shape(config, dtype), rows, num_pages);
  Arena head;
  plan_head(head, config.text_config, dtype, 1);
  return static_cast<int64_t>(std::max({tile.peak(), connector.peak(), text.peak(), head.peak()}));
}

}  // namespace

MemoryEstimate estimate_memory(const Idefics3Config& config, const Checkpoint& checkpoint, Element dtype) {
  const KvCache::Shape shape = kv_shape(config, dtype);
  const int64_t num_pages = (config.get_max_seq_len() + shape.page_size - 1) / shape.page_size;
  return {.weights = count_parameters(config, checkpoint).total() * dtype_bytes(dtype),
          .kv_per_1024_tokens = KvCache::page_bytes(shape) * 1024 / shape.page_size,
          .kv_full_context = KvCache::page_bytes(shape) * num_pages,
          .scratch = scratch_bytes(config, dtype, num_pages)};
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
