// What one step of the model reads, and the cache of keys and values that it reads and writes.
//
// Letters: B sequences of the step, T active tokens of all of them together, M tiles, S image tokens a tile, P = M S.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "idefics/config.h"
#include "idefics/context.h"
#include "idefics/tensor.h"

namespace idefics {

// The sequences of one step, borrowed.
using Batch = std::vector<const TextAndVisionContext*>;

// Where the keys and values of each sequence lie: pages of page_size tokens in one big array.
struct KVCacheInputs {
  // [pages, L, G, page_size / 64, block]: layers, kv heads, and blocks of 64 tokens, each its keys and then its values,
  // in the layout of the kernels. float32: keys [D, 64], values [64, Dp]; bfloat16: keys [Dp/2, 64, 2], values
  // [32, Dp, 2], pairs along the summed index; Dp = D rounded up to a multiple of 16. q8 is uint8: keys and values as
  // in bfloat16 but in 8 bits, each with 64 scales (float32) behind. (The reference has [pages, 2, L, page_size, G, D].
  // Whole pages can be copied, the inside is not meant to be read.)
  Tensor kv_blocks;
  Tensor cache_lengths;  // uint32 [B]: tokens that are in the cache before the step
  Tensor lookup_table;   // uint32 [B, max_pages]: the pages of each sequence in order; the rest of a row is not read
  Tensor max_prompt_length;  // uint32 [1]: most active tokens of a sequence. For other readers of these inputs; the
  Tensor max_cache_length;   // uint32 [1]: most tokens of a sequence, the active ones included.  model looks itself
  Tensor page_stride;        // int64 [1]: elements from page to page in kv_blocks; likewise
  std::optional<Tensor> attention_dispatch_metadata;  // chooses kernels on other devices; always absent

  // All but the last, in this order: the inputs of the language model behind its first five.
  std::vector<Tensor> flatten() const;
};

// Owns the bytes of a paged cache and knows which sequence has which pages. Sequences are named by their request_id.
//
//   PagedKVCacheManager kv(model.config().get_kv_params(), 64);
//   kv.claim(context);
//   kv.alloc(context);                                   // before every step
//   KVCacheInputs inputs = kv.runtime_inputs({&context});
//   kv.release(context);
//
// It shares no prefixes; Engine does.
// Threads: one owner. Errors: kInvalidValue for misuse.
class PagedKVCacheManager {
 public:
  // params.page_size must be a multiple of 64.   Errors: kInvalidValue, kOutOfMemory.
  PagedKVCacheManager(const KVCacheParams& params, int64_t total_num_pages);
  PagedKVCacheManager(PagedKVCacheManager&&) noexcept;
  PagedKVCacheManager& operator=(PagedKVCacheManager&&) noexcept;
  ~PagedKVCacheManager();

  // Makes a sequence known; it has no pages yet.   Errors: its request_id is taken.
  void claim(const TextAndVisionContext& context);
  bool contains(const TextAndVisionContext& context) const;
  // Gives the sequence pages for `num_steps` steps: its processed and active tokens, and one more token for each
  // further step. Takes none when there are too few: kOutOfMemory.
  void alloc(const TextAndVisionContext& context, int num_steps = 1);
  // All pages of the sequences of a batch. cache_lengths are the processed lengths.   Errors: a sequence is unknown or
  // has too few pages.
  KVCacheInputs runtime_inputs(const Batch& batch) const;
  // Takes the pages back and forgets the sequence.
  void release(const TextAndVisionContext& context);

  int64_t total_num_pages() const;
  int64_t num_free_pages() const;
  size_t bytes_per_page() const;

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

// Everything one step reads. Made by Idefics3Model::prepare_initial_token_inputs, or by hand.
struct Idefics3Inputs {
  Tensor tokens;             // int64 [T]: the active tokens of all sequences, one sequence behind the other
  Tensor input_row_offsets;  // uint32 [B + 1]: where each begins; first 0, last T
  Tensor return_n_logits;    // int64 [1]: n of ReturnLogits::kVariable, at least 1
  // float32 or bfloat16 [M, 3, image_size, image_size]: tiles to encode, in the order of image_token_indices. Absent
  // when there are none; then image_token_indices is not read.
  std::optional<Tensor> pixel_values;
  // int32 [P]: row k of the features replaces row image_token_indices[k] of the embedded tokens. A feature whose index
  // is negative or T or more is dropped: those of a tile that a cached prefix or another chunk has. INT32_MIN is
  // written for them. Of equal indices the last one counts. Of length 0 for text alone.
  std::optional<Tensor> image_token_indices;
  std::optional<KVCacheInputs> kv_cache_inputs;
  std::optional<Tensor> lora_ids, lora_ranks;  // adapters of the sequences; the model has none and refuses them
  std::optional<Tensor> hidden_states;         // of a target model, for draft models; refused: this is none

  bool has_vision_inputs() const { return pixel_values.has_value(); }
};

// What a padded batch of frames holds, as transformers passes them.
struct RealFrames {
  std::optional<Tensor> pixel_values;  // [M, 3, side, side] of the wanted dtype, in the order of the batch
  std::vector<int> frames_per_sample;  // how many of each sample are real
};
// A frame of `padded` (float32 [B, n, 3, side, side]) is padding when all its values are 0 after rounding to `dtype`
// (kF32 or kBf16). A SmolVLM batch without any real frame keeps its first one.
// Errors: kInvalidValue for another shape or type, and for an Idefics3 batch without any real frame.
RealFrames remove_padding_frames(const Tensor& padded, Architecture architecture, DType dtype);

}  // namespace idefics
