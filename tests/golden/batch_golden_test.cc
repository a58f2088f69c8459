// A step of many sequences, with more pages than have their tables in memory at once, computes what each computes
// alone.
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "golden.h"
#include "idefics/config.h"
#include "model/network.h"

namespace idefics {
namespace {

constexpr int kSequences = 7, kPrompt = 14, kRows = 3;
constexpr int64_t kPagesEach = 200;  // named by each sequence; one or two of them hold its tokens

Idefics3Config config_of(const std::filesystem::path& folder, const Checkpoint& checkpoint) {
  PipelineConfig pipeline;
  pipeline.model.huggingface_config = HuggingFaceConfig::load(folder);
  Idefics3Config config = Idefics3Config::initialize(pipeline);
  config.finalize(*pipeline.model.huggingface_config, checkpoint.state_dict(), ReturnLogits::kAll);
  return config;
}

std::vector<int32_t> ids_of(int sequence, int count) {
  std::vector<int32_t> ids;
  for (int i = 0; i < count; ++i) ids.push_back(20 + sequence * 11 + i * 7 % 50);
  return ids;
}

// Of the text layers alone: the tower for tiles, which shares an engine's scratch, would hide that tables need too
// much.
size_t scratch_bytes(const Idefics3Config& config, Element dtype) {
  Arena measure;
  plan_text_layers(measure, config.text_config, dtype, Network::kv_shape(config, dtype), kRows * kSequences,
                   kPagesEach);
  return measure.peak();
}

class Batch {
 public:
  Batch(const std::filesystem::path& folder, Element dtype)
      : pool_(2),
        checkpoint_(Checkpoint::open(folder)),
        config_(config_of(folder, checkpoint_)),
        network_(pool_, checkpoint_, config_, dtype),
        arena_(scratch_bytes(config_, dtype), "test"),
        cache_(Network::kv_shape(config_, dtype), 2 * kSequences) {
    for (int i = 0; i < kSequences; ++i) {
      pages_.emplace_back(static_cast<size_t>(kPagesEach), PageId{2 * i + 1});
      pages_.back()[0] = 2 * i;
      run(ids_of(i, kPrompt + i), {{0, kPrompt + i, 0, pages_.back()}});
    }
  }

  SequenceRows rows_of(int sequence, int first_row) const {
    return {first_row, kRows, kPrompt + sequence, pages_[static_cast<size_t>(sequence)]};
  }
  std::vector<float> run(const std::vector<int32_t>& ids, const std::vector<SequenceRows>& sequences) {
    const int64_t E = config_.text_config.hidden_size, T = std::ssize(ids);
    std::vector<float> x(static_cast<size_t>(T * E));
    const Matrix<float> rows(x.data(), T, E);
    network_.embed(ids, rows);
    network_.run({kernels::choose_table(), pool_, arena_}, sequences, cache_, rows);
    return x;
  }

 private:
  ThreadPool pool_;
  Checkpoint checkpoint_;
  Idefics3Config config_;
  Network network_;
  Arena arena_;
  KvCache cache_;
  std::vector<std::vector<PageId>> pages_;
};

TEST(Batch, many_sequences_in_one_step_are_each_alone) {
  for (const Element dtype : {Element::kF32, Element::kBf16}) {
    Batch batch(golden::data("checkpoints/b_head_dim"), dtype);
    std::vector<int32_t> ids;
    std::vector<SequenceRows> together;
    std::vector<float> alone;
    for (int i = 0; i < kSequences; ++i) {
      const std::vector<int32_t> own = ids_of(i + 3, kRows);
      const std::vector<float> x = batch.run(own, {batch.rows_of(i, 0)});
      alone.insert(alone.end(), x.begin(), x.end());
      ids.insert(ids.end(), own.begin(), own.end());
      together.push_back(batch.rows_of(i, i * kRows));
    }
    EXPECT_EQ(batch.run(ids, together), alone);
    EXPECT_FALSE(std::equal(alone.begin(), alone.begin() + std::ssize(alone) / kSequences,
                            alone.end() - std::ssize(alone) / kSequences));
  }
}

}  // namespace
}  // namespace idefics
