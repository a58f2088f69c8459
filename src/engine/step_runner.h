// What a step computes, on the network: the mechanism beside the scheduler's policy.
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "engine/vision_cache.h"
#include "idefics/engine.h"
#include "model/language_step.h"
#include "model/network.h"
#include "scheduling/scheduler.h"

namespace idefics {

// The tokens of some rows, and the tiles of their prompt.
struct RowTokens {
  std::span<const int32_t> known, drafts;  // rows [context, ..) come from `known`, then from `drafts`
  std::span<const SequenceTile> tiles;
};

// Owns the cache of keys and values, scratch, hidden rows and logits, all made once: a step allocates nothing but the
// features of a new tile.
// Threads: one owner.
class StepRunner {
 public:
  // Logits exist for so many rows at a time.
  static int max_logit_rows(const EngineOptions& options);
  static int64_t num_pages(const EngineOptions& options, const Network& network);
  static KvCache::Shape kv_shape(const EngineOptions& options, const Network& network);
  // The bytes of scratch for an engine of these options.
  static size_t scratch_bytes(const Idefics3Config& config, Format format, const EngineOptions& options);

  // `options` as check_options leaves them.
  StepRunner(const EngineOptions& options, const Network& network, const kernels::Table& kernels, ThreadPool& pool,
             const std::array<float, 768>& pixel_table);

  void copy_pages(std::span<const StepPlan::PageCopy> copies);
  // Rows of the plan through the text tower; `tokens` has an entry for each of plan.rows.
  void run_rows(const StepPlan& plan, std::span<const RowTokens> tokens);
  // Logits of rows of the last run_rows, at most max_logit_rows; [rows, V], which may be changed. They stay until the
  // next call.
  Matrix<float> logits(std::span<const int32_t> rows);
  // A tile into the cache of features, pinned; not when `check`, which sees the features, throws.
  //   rgb  [side, side, 3]
  void encode(const TileKey& key, std::span<const uint8_t> rgb,
              const std::function<void(std::span<float> features)>& check);

  VisionCache& vision() { return vision_; }
  size_t kv_bytes() const { return cache_.bytes(); }
  const KvCache::Shape& kv_shape() const { return cache_.shape(); }
  size_t scratch_bytes() const { return arena_.capacity(); }

 private:
  void add_images(const StepPlan::Rows& rows, std::span<const SequenceTile> tiles);
  Exec exec() { return {kernels_, pool_, arena_}; }

  const Network& network_;
  const kernels::Table& kernels_;
  ThreadPool& pool_;
  const std::array<float, 768>& pixel_table_;
  Arena arena_;
  KvCache cache_;
  VisionCache vision_;
  std::vector<float> x_, logits_;  // [rows, E], [logit rows, V]
  std::vector<int32_t> ids_;       // of the rows
  std::vector<int32_t> numbers_;   // 0, 1, 2, ..: the rows themselves
  std::vector<ImageRows> images_;
  std::vector<SequenceRows> sequences_;
  int64_t num_rows_ = 0;  // of the last run_rows
};

}  // namespace idefics
