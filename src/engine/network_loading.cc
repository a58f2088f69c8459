#include "engine/network_loading.h"

#include <fmt/format.h>

#include <algorithm>

#include "checkpoint/processor_files.h"

namespace idefics {

namespace {

Format choose_format(ComputeType wanted, const Checkpoint& checkpoint) {
  switch (wanted) {
    case ComputeType::kAuto: break;
    case ComputeType::kF32: return Format::kF32;
    case ComputeType::kBf16: return Format::kBf16;
    case ComputeType::kInt8: return Format::kInt8;
    case ComputeType::kQ8: return Format::kQ8;
    case ComputeType::kQ4: return Format::kQ4;
  }
  return checkpoint.compute_dtype() == DType::kBf16 ? Format::kBf16 : Format::kF32;
}

void refuse_nonfinite(const std::vector<std::string>& names, const std::filesystem::path& folder) {
  if (names.empty()) return;
  throw Error(ErrorCode::kBadModel,
              fmt::format("{}: {} {} NaN or Inf; the file is damaged (--allow-nonfinite loads it all the same)",
                          folder.string(), names.front(),
                          names.size() == 1 ? "has" : fmt::format("and {} more tensors have", names.size() - 1)));
}

}  // namespace

std::unique_ptr<Network> load_network(const std::filesystem::path& folder, const EngineOptions& options,
                                      ThreadPool& pool) {
  PipelineConfig pipeline;
  pipeline.model.model_path = folder;
  pipeline.model.huggingface_config = HuggingFaceConfig::load(folder);
  pipeline.model.max_length = options.max_model_len;
  Idefics3Config config = Idefics3Config::initialize(pipeline);
  check_processor_config(load_processor_config(folder), config);
  const Checkpoint checkpoint = Checkpoint::open(folder);
  checkpoint.verify(config);
  config.finalize(*pipeline.model.huggingface_config, checkpoint.state_dict(), ReturnLogits::kLastToken);
  auto network = std::make_unique<Network>(pool, checkpoint, config, choose_format(options.dtype, checkpoint));
  if (!options.allow_nonfinite) refuse_nonfinite(network->nonfinite(), folder);
  return network;
}

}  // namespace idefics
