#include "cli/memory_estimate.h"

#include <gtest/gtest.h>

#include "cli/model_folder.h"
#include "idefics/engine.h"

namespace idefics::cli {
namespace {

std::vector<std::filesystem::path> models() {
  std::vector<std::filesystem::path> out = {std::filesystem::path(IDEFICS_SOURCE_DIR) / "models/tiny-cards"};
  for (const auto& entry :
       std::filesystem::directory_iterator(std::filesystem::path(IDEFICS_GOLDENS) / "checkpoints")) {
    if (entry.is_directory()) out.push_back(entry.path());
  }
  return out;
}

TEST(MemoryEstimate, is_what_the_engine_takes) {
  for (const auto& folder : models()) {
    const ModelFolder model = ModelFolder::open(folder);
    for (const auto& [dtype, type] :
         {std::pair(Format::kF32, ComputeType::kF32), std::pair(Format::kBf16, ComputeType::kBf16),
          std::pair(Format::kQ8, ComputeType::kQ8), std::pair(Format::kQ4, ComputeType::kQ4),
          std::pair(Format::kInt8, ComputeType::kInt8)}) {
      const MemoryEstimate estimate = estimate_memory(model.config, model.checkpoint, dtype);
      const Engine::Memory memory = Engine::load(folder, {.dtype = type, .num_threads = 1, .max_num_seqs = 1}).memory();
      EXPECT_EQ(estimate.kv_full_context, static_cast<int64_t>(memory.kv_cache)) << folder;
      EXPECT_EQ(estimate.scratch, static_cast<int64_t>(memory.scratch)) << folder;
      // Matrices are padded to whole panels, which only matters where they are tiny.
      EXPECT_LE(estimate.weights * 9 / 10, static_cast<int64_t>(memory.weights)) << folder;
      const bool tiny = folder.filename() != "tiny-cards";
      EXPECT_GE(estimate.weights * (tiny ? 25 : 11) / 10, static_cast<int64_t>(memory.weights)) << folder;
    }
  }
}

TEST(CountParameters, counts_a_tied_head_once) {
  const ModelFolder model = ModelFolder::open(std::filesystem::path(IDEFICS_SOURCE_DIR) / "models/tiny-cards");
  const Parameters p = count_parameters(model.config, model.checkpoint);
  EXPECT_TRUE(model.config.text_config.tie_word_embeddings);
  EXPECT_EQ(p.connector, 192 * 1152);
  EXPECT_EQ(p.total(), model.checkpoint.totals().parameters);
}

}  // namespace
}  // namespace idefics::cli
