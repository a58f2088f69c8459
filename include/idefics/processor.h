// From messages and pictures to what the model reads.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "idefics/processor_config.h"

namespace idefics {

// How pictures are cut, of a prompt or of one picture. What is not set comes from the checkpoint's files.
struct ImageOptions {
  std::optional<bool> split = std::nullopt;        // cut into tiles (and one overview) or encode a single tile
  std::optional<int> longest_edge = std::nullopt;  // long side of the picture before it is cut, in pixels
  std::optional<int> max_tiles =
      std::nullopt;  // most tiles per picture, the overview included; a picture is made smaller until it fits
};

// One part of a message: text, or a picture.
struct ContentPart {
  enum class Type { kText, kImage };
  Type type = Type::kText;
  std::string text;      // kText: UTF-8. Never becomes a control token or a picture's place, whatever it contains.
  std::string image;     // kImage: the bytes of an encoded file (JPEG, PNG, WebP, TIFF, GIF, BMP)
  ImageOptions options;  // kImage: how this one is cut; what is not set is as PromptOptions::images say

  static ContentPart of_text(std::string text) { return {Type::kText, std::move(text), {}, {}}; }
  static ContentPart of_image(std::string file_bytes, const ImageOptions& options = {}) {
    return {Type::kImage, {}, std::move(file_bytes), options};
  }
};

struct Message {
  std::string role;  // "system", "user", "assistant"
  std::vector<ContentPart> content;
};

// A picture as it is before it is cut: RGB, [height, width, 3], oriented as it is to be seen.
struct DecodedPicture {
  int width = 0, height = 0;
  std::vector<uint8_t> rgb;
};
// From the bytes of an encoded file. Called from several threads at once.
// Errors: kImageInvalid, kImageTooLarge, kOutOfMemory.
using PictureDecoder = std::function<DecodedPicture(std::string_view file_bytes)>;

// One picture of a prompt, cut into square tiles.
struct PromptImage {
  int width = 0, height = 0;                  // of the decoded picture, after its EXIF orientation
  int rows = 0, cols = 0;                     // grid of tiles, without the overview; 0 x 0: a single tile
  int resized_width = 0, resized_height = 0;  // after the first resize (long side = longest_edge)
  int tiled_width = 0, tiled_height = 0;      // after the second (multiples of the tile side)
  int count = 0;                              // tiles, the overview (last) included
  int side = 0;                               // of a tile, in pixels
  std::vector<uint8_t> tiles;                 // [count, side, side, 3] RGB
  std::span<const uint8_t> tile(int i) const {
    const size_t bytes = size_t{3} * static_cast<size_t>(side) * static_cast<size_t>(side);
    return {tiles.data() + static_cast<size_t>(i) * bytes, bytes};
  }
};

// Where the features of one tile go: tokens [first, first + image_seq_len) of the prompt.
struct TileSpan {
  int image, tile;
  int first;
};

// The contract between input and engine.
struct Prompt {
  std::string text;  // what was tokenised: template rendered, placeholders expanded
  std::vector<int32_t> ids;
  std::vector<PromptImage> images;
  std::vector<TileSpan> tiles;  // in the order of the tokens
  int num_image_tokens = 0;     // tokens that carry features
};

// Options of one prompt.
struct PromptOptions {
  ImageOptions images;
  bool add_generation_prompt = true;
  bool continue_final_message = false;  // the last message is the beginning of the answer
};

// The processor of a checkpoint folder: chat template, tokenizer, image processor.
// Threads: const functions may be called from several threads at once.
class Processor {
 public:
  // Reads tokenizer, template and processor files. Error kBadModel names the file and the key.
  // `decoder`: how pictures are decoded; empty: in this process, by the decoders of this library.
  static Processor load(const std::filesystem::path& folder, PictureDecoder decoder = {});
  Processor(Processor&&) noexcept;
  Processor& operator=(Processor&&) noexcept;
  ~Processor();

  // Renders the chat template, decodes and cuts the pictures, tokenises.
  // Errors: kImageInvalid, kImageTooLarge, kTooManyImages, kTemplateError, kPromptEmpty, kInvalidValue.
  Prompt prompt(std::span<const Message> messages, const PromptOptions& options = {}) const;

  // A prompt without template: `text` is trusted, each "<image>" in it is a picture's place. `images`: encoded files.
  Prompt raw_prompt(std::string_view text, std::span<const std::string> images,
                    const PromptOptions& options = {}) const;

  // Decodes and cuts one picture.
  PromptImage cut(std::string_view file_bytes, const ImageOptions& options = {}) const;
  // Tokens that a picture of this size takes in a prompt; `image_tokens` of them carry features.
  struct ImageCost {
    int rows, cols, tiles, tokens, image_tokens;
  };
  ImageCost image_cost(int width, int height, const ImageOptions& options = {}) const;
  // Normalised pixels of one tile, [3, side, side] float32.
  void pixel_values(std::span<const uint8_t> tile, int side, std::span<float> out) const;

  std::vector<int32_t> tokenize(std::string_view text, bool add_special_tokens, bool untrusted) const;
  std::string detokenize(std::span<const int32_t> ids, bool skip_special_tokens) const;

  const ProcessorConfig& config() const;
  // Ids at which an answer ends: generation_config.json, then config.json, then the tokenizer's eos, and
  // <end_of_utterance> where the vocabulary has it.
  const std::vector<int32_t>& stop_ids() const;
  int image_token_id() const;
  int vocab_size() const;  // of the model: larger ids never leave the processor

  struct Parts;  // the rooms inside; for the engine of this library only
  const Parts& parts() const { return *parts_; }

 private:
  explicit Processor(std::unique_ptr<Parts> parts);
  std::unique_ptr<Parts> parts_;
};

}  // namespace idefics
