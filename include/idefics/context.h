// One sequence on its way through the model: its tokens, how far they are computed, and its pictures.
//
//   Idefics3Tokenizer tokenizer = Idefics3Tokenizer::load("models/x");
//   TextAndVisionContext context = tokenizer.new_context({.messages = {{"user", {ContentPart::of_text("Hello")}}}});
//
// The model-level interface (model.h) works on these. Programs that only want answers use Engine (engine.h).
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "idefics/processor.h"
#include "idefics/sampling.h"
#include "idefics/tensor.h"

namespace idefics {

// The tokens of a sequence and which of them are computed.
//
//   [ processed ............ | active ........ | later ... ]
//   0                processed_length   + active_length    size()
//
// Processed tokens are in the KV cache; active ones go through the model in the next step; later ones exist only while
// a prompt is computed in chunks.
class TokenBuffer {
 public:
  TokenBuffer() = default;
  explicit TokenBuffer(std::vector<int32_t> prompt);  // all of it active

  std::span<const int32_t> all() const { return ids_; }
  std::span<const int32_t> prompt() const { return all().first(prompt_length_); }
  std::span<const int32_t> generated() const { return all().subspan(prompt_length_); }
  std::span<const int32_t> active() const { return all().subspan(processed_, end_ - processed_); }
  int size() const { return static_cast<int>(ids_.size()); }
  int prompt_length() const { return static_cast<int>(prompt_length_); }
  int processed_length() const { return static_cast<int>(processed_); }
  int active_length() const { return static_cast<int>(end_ - processed_); }
  bool actively_chunked() const { return end_ < ids_.size(); }

  // Marks the first n active tokens as processed: a cached prefix has them.   0 <= n < active_length, else
  // kInvalidValue: one token must stay, since its logits are the next token's.
  void skip_processing(int n);
  // The inverse: the last n processed tokens are active again.   0 <= n <= processed_length.
  void rewind_processing(int n);
  // Leaves the first n active tokens active and puts the rest off.   1 <= n <= active_length.
  void chunk(int n);
  // After a step over a chunk: its tokens are processed, the rest of the sequence is active.
  void advance_chunk();
  // After a step: the active tokens are processed, `id` is appended and is the one active token. kInvalidValue while
  // the buffer is chunked.
  void advance_with_token(int32_t id);

 private:
  std::vector<int32_t> ids_;
  size_t prompt_length_ = 0, processed_ = 0, end_ = 0;
};

// What the model calls an image: one tile. A picture becomes rows x columns tiles and an overview.
struct ImageMetadata {
  int start_idx = 0, end_idx = 0;     // its image tokens are [start_idx, end_idx) of the sequence
  Tensor pixel_values;                // float32 [3, side, side], normalised
  std::optional<int64_t> image_hash;  // XXH3-64 of the bytes of pixel_values, as a signed number; see new_context
};

struct TextAndVisionContext {
  std::string request_id;  // names the sequence to a PagedKVCacheManager
  TokenBuffer tokens;
  std::vector<ImageMetadata> images;      // ascending, disjoint
  std::vector<int32_t> vision_token_ids;  // the ids that stand for features: <image>
  int max_length = 0;                     // most tokens of the sequence
  SamplingParams sampling_params;
  std::vector<int32_t> eos_token_ids;  // ascending; what ends an answer, unless sampling_params says otherwise

  // The images that still have tokens to be computed: end_idx > processed_length.
  std::span<const ImageMetadata> next_images() const;
  bool needs_vision_encoding() const { return !next_images().empty(); }
  // After a step. Between the chunks of a prompt the next chunk begins and `new_token` is dropped; otherwise it is
  // appended and active.
  void update(int32_t new_token);
  // Errors: kInvalidValue, when images are out of order, overlap or leave the sequence, or when the first or last token
  // of one is no vision token.
  void check() const;
};

// A prompt to be answered: messages through the chat template, or text as it is.
struct TextGenerationRequest {
  std::string request_id = {};
  std::vector<Message> messages = {};
  std::optional<std::string> prompt =
      std::nullopt;                      // instead of messages: trusted text, each "<image>" is the place of a picture
  std::vector<std::string> images = {};  // the pictures of `prompt`: encoded files
  PromptOptions options = {};
  SamplingParams sampling_params = {};
};

// Prompts become contexts.
// Threads: const functions may be called by many at once.
class Idefics3Tokenizer {
 public:
  // `max_length`: most tokens of a sequence; nothing: the model's max_position_embeddings.
  // Errors: those of Processor::load; kInvalidValue for a length outside 1 .. max_position_embeddings.
  static Idefics3Tokenizer load(const std::filesystem::path& folder, std::optional<int> max_length = std::nullopt);

  // All tokens are active, each tile has its range and its pixels. sampling_params.max_tokens is lowered to what
  // max_length leaves. `hash_images` fills image_hash.
  // Errors: those of Processor::prompt; kContextLengthExceeded when the prompt has more than max_length tokens.
  TextAndVisionContext new_context(const TextGenerationRequest& request, bool hash_images = false) const;

  std::vector<int32_t> encode(std::string_view text, bool add_special_tokens = true) const;
  std::string decode(std::span<const int32_t> ids, bool skip_special_tokens = true) const;
  int max_length() const { return max_length_; }
  const Processor& processor() const { return processor_; }

 private:
  Idefics3Tokenizer(Processor processor, int max_length) : processor_(std::move(processor)), max_length_(max_length) {}
  Processor processor_;
  int max_length_;
};

}  // namespace idefics
