#include "cli/memory_estimate.h"

#include <algorithm>

#include "engine/step_runner.h"

namespace idefics::cli {

namespace {

// Calls f(name, tensor) for each tensor that the network takes.
template <typename F>
void for_tensors(const Idefics3Config& config, const Checkpoint& checkpoint, F f) {
  const std::vector<std::string> unused = checkpoint.verify(config);
  for (const auto& [name, tensor] : checkpoint.tensors()) {
    if (std::find(unused.begin(), unused.end(), name) != unused.end()) continue;
    if (name == "lm_head.weight" && config.text_config.tie_word_embeddings) continue;
    f(name, tensor);
  }
}

// Of one row of a matrix with k columns. (kernels/table.h)
int64_t row_bytes(Format format, int64_t k) {
  const int64_t groups = (k + kernels::kGroup - 1) / kernels::kGroup;
  switch (format) {
    case Format::kF32: return 4 * k;
    case Format::kBf16: return 2 * k;
    case Format::kQ8: return groups * (kernels::kGroup + 2);
    case Format::kQ4: return groups * (kernels::kGroup / 2 + 4);
    case Format::kInt8: return (k + kernels::kGroupInt8 - 1) / kernels::kGroupInt8 * kernels::kGroupInt8 + 4;
  }
  return 0;
}

Format format_of(const std::string& name, Format format) {
  const bool text = name.starts_with("model.text_model."), head = name == "lm_head.weight";
  if (head || name == "model.text_model.embed_tokens.weight") return head_format(format);
  return text ? format : picture_format(format);
}

int64_t weight_bytes(const Idefics3Config& config, const Checkpoint& checkpoint, Format format) {
  int64_t bytes = 0;
  for_tensors(config, checkpoint, [&](const std::string& name, const TensorInfo& tensor) {
    const bool table = name.ends_with("position_embedding.weight") ||
                       (name == "model.text_model.embed_tokens.weight" && !config.text_config.tie_word_embeddings);
    const bool matrix = tensor.shape.size() == 2 && !table;  // the patch embedding has four dimensions
    bytes += matrix ? tensor.shape[0] * row_bytes(format_of(name, format), tensor.shape[1])
                    : tensor.num_elements() * dtype_bytes(format.input());
  });
  return bytes;
}

}  // namespace

MemoryEstimate estimate_memory(const Idefics3Config& config, const Checkpoint& checkpoint, Format format) {
  const KvCache::Shape shape = Network::kv_shape(config, format.input());
  EngineOptions options;
  options.max_num_seqs = 1;  // as `generate` and `chat` load it
  options.max_num_batched_tokens = std::min(options.max_num_batched_tokens, config.get_max_seq_len());
  const int64_t num_pages = (config.get_max_seq_len() + shape.page_size - 1) / shape.page_size;
  return {.weights = weight_bytes(config, checkpoint, format),
          .kv_per_1024_tokens = KvCache::page_bytes(shape) * 1024 / shape.page_size,
          .kv_full_context = KvCache::page_bytes(shape) * num_pages,
          .scratch = static_cast<int64_t>(StepRunner::scratch_bytes(config, format, options))};
}

Parameters count_parameters(const Idefics3Config& config, const Checkpoint& checkpoint) {
  Parameters out;
  for_tensors(config, checkpoint, [&](const std::string& name, const TensorInfo& tensor) {
    const bool vision = name.starts_with("model.vision_model."), connector = name.starts_with("model.connector.");
    (vision ? out.vision : connector ? out.connector : out.text) += tensor.num_elements();
  });
  return out;
}

}  // namespace idefics::cli
