#include <fmt/format.h>

#include <algorithm>

#include "idefics/config.h"
#include "idefics/context.h"
#include "idefics/error.h"
#include "pipeline/image_hash.h"

namespace idefics {

Idefics3Tokenizer Idefics3Tokenizer::load(const std::filesystem::path& folder, std::optional<int> max_length) {
  PipelineConfig pipeline;
  pipeline.model.max_length = max_length;
  const int length = Idefics3Config::calculate_max_seq_len(pipeline, HuggingFaceConfig::load(folder));
  return Idefics3Tokenizer(Processor::load(folder), length);
}

TextAndVisionContext Idefics3Tokenizer::new_context(const TextGenerationRequest& request, bool hash_images) const {
  if (request.prompt && !request.messages.empty()) {
    throw Error(ErrorCode::kInvalidValue, "request: has a prompt and messages; give one of the two");
  }
  Prompt prompt = request.prompt ? processor_.raw_prompt(*request.prompt, request.images, request.options)
                                 : processor_.prompt(request.messages, request.options);
  const int length = static_cast<int>(prompt.ids.size());
  if (length > max_length_) {
    throw Error(ErrorCode::kContextLengthExceeded,
                fmt::format("prompt: {} tokens ({} of them for {} image tiles) exceed the context of {}; shorten the "
                            "text, send fewer or smaller images, or lower max_tiles",
                            length, prompt.num_image_tokens, prompt.tiles.size(), max_length_));
  }
  TextAndVisionContext context;
  context.request_id = request.request_id;
  context.tokens = TokenBuffer(std::move(prompt.ids));
  context.vision_token_ids = {processor_.image_token_id()};
  context.max_length = max_length_;
  context.sampling_params = request.sampling_params;
  context.eos_token_ids = processor_.stop_ids();
  int& most = context.sampling_params.max_tokens;
  const int room = max_length_ - length;
  most = most > 0 ? std::min(most, room) : room;
  for (const TileSpan& span : prompt.tiles) {
    const PromptImage& picture = prompt.images[static_cast<size_t>(span.image)];
    ImageMetadata image{.start_idx = span.first,
                        .end_idx = span.first + processor_.config().image_seq_len,
                        .pixel_values = Tensor::zeros(TensorDType::kF32, {3, picture.side, picture.side}),
                        .image_hash = std::nullopt};
    processor_.pixel_values(picture.tile(span.tile), picture.side, image.pixel_values.as_mutable<float>());
    if (hash_images) image.image_hash = hash_image(image.pixel_values);
    context.images.push_back(std::move(image));
  }
  return context;
}

std::vector<int32_t> Idefics3Tokenizer::encode(std::string_view text, bool add_special_tokens) const {
  return processor_.tokenize(text, add_special_tokens, false);
}

std::string Idefics3Tokenizer::decode(std::span<const int32_t> ids, bool skip_special_tokens) const {
  return processor_.detokenize(ids, skip_special_tokens);
}

}  // namespace idefics
