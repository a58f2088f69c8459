// The whole network of a checkpoint: weights, and the passes over them. No text, no scheduling.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "idefics/config.h"
#include "model/kv_cache.h"
#include "model/probe.h"
#include "model/text_tower.h"
#include "model/vision_tower.h"
#include "model/weight_loader.h"

namespace idefics {

// Letters in shapes: E text width, V vocabulary, S image tokens a tile, N patches a side.
// Threads: const after construction; a pass uses the Exec it is given.
class Network {
 public:
  // Packs the weights of `checkpoint`, which `config` (after finalize) describes, in `format`. The checkpoint may be
  // closed afterwards. Of a quantised network the patch embedding and an embedding table of its own stay in bfloat16.
  // Errors: kBadModel (a tensor is missing or of another shape), kOutOfMemory.
  Network(ThreadPool& pool, const Checkpoint& checkpoint, const Idefics3Config& config, Format format);

  const Idefics3Config& config() const { return config_; }
  Format format() const { return format_; }
  Element dtype() const { return format_.input(); }  // of activations; of keys and values unless the caller chooses
  size_t weight_bytes() const { return memory_.capacity(); }
  // The tensors that hold NaN or Inf, by name.
  const std::vector<std::string>& nonfinite() const { return nonfinite_; }
  const TextWeights& text() const { return text_; }

  // One tile to its S feature rows.
  //   features  [S, E] float32
  void encode(const Exec& exec, const TilePixels& pixels, Matrix<float> features, const Probe& probe = {}) const;
  // The same for a tile of which only the top left `valid` patches are picture.
  void encode(const Exec& exec, const TilePixels& pixels, ValidPatches valid, Matrix<float> features,
              const Probe& probe = {}) const;
  int patches_per_side() const { return config_.vision_config.image_size / config_.vision_config.patch_size; }

  // x[i] = embedding of ids[i], which must be below V.   x [T, E]
  void embed(std::span<const int32_t> ids, Matrix<float> x) const;
  // All text layers over a ragged step (text_tower.h).
  void run(const Exec& exec, std::span<const SequenceRows> sequences, KvCache& cache, Matrix<float> x,
           const Probe& probe = {}) const;
  // logits [R, V] of rows `rows` of x.
  void logits(const Exec& exec, Matrix<const float> x, std::span<const int32_t> rows, Matrix<float> logits,
              const Probe& probe = {}) const;

  // y = the final norm of x, which the head applies by itself.   x, y [R, E]
  void normalize(const Exec& exec, Matrix<const float> x, Matrix<float> y) const;

  // What a network of this configuration needs, known before any weight is read: the cache's shape, and the bytes of
  // arena for passes over at most `max_rows` rows of text in at most `max_pages` pages a sequence and logits of at most
  // `max_logit_rows` rows.
  static KvCache::Shape kv_shape(const Idefics3Config& config, KvType dtype);
  static KvCache::Shape kv_shape(const Idefics3Config& config, Element dtype) {
    return kv_shape(config, kv_type_of(dtype));
  }
  static size_t scratch_bytes(const Idefics3Config& config, Format format, int64_t max_rows, int64_t max_pages,
                              int64_t max_logit_rows);

 private:
  void load(WeightLoader& loader);

  Idefics3Config config_;
  Format format_;
  Arena memory_;  // of all matrices
  VisionWeights vision_;
  PackedMatrix connector_;
  TextWeights text_;
  std::vector<std::string> nonfinite_;
};

}  // namespace idefics
