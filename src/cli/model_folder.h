// A checkpoint opened by its headers: everything but the weights' bytes.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "idefics/config.h"
#include "idefics/processor.h"

namespace idefics::cli {

struct ModelFolder {
  HuggingFaceConfig huggingface_config;
  Idefics3Config config;  // finalized
  Checkpoint checkpoint;
  std::vector<std::string> unused_tensors;

  // Errors: kBadModel.
  static ModelFolder open(const std::filesystem::path& folder);
};

}  // namespace idefics::cli
