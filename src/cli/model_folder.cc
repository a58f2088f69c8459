#include "cli/model_folder.h"

namespace idefics::cli {

ModelFolder ModelFolder::open(const std::filesystem::path& folder) {
  PipelineConfig pipeline;
  pipeline.model.model_path = folder;
  pipeline.model.huggingface_config = HuggingFaceConfig::load(folder);
  const HuggingFaceConfig& huggingface_config = *pipeline.model.huggingface_config;
  Idefics3Config config = Idefics3Config::initialize(pipeline);
  Checkpoint checkpoint = Checkpoint::open(folder);
  std::vector<std::string> unused = checkpoint.verify(config);
  config.finalize(huggingface_config, checkpoint.state_dict(), ReturnLogits::kLastToken);
  return {huggingface_config, std::move(config), std::move(checkpoint), std::move(unused)};
}

}  // namespace idefics::cli
