#include "idefics/processor.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/files.h"
#include "base/json.h"
#include "base/utf8.h"
#include "image/tiles.h"
#include "processor/expansion.h"
#include "processor/parts.h"

namespace idefics {

namespace {

constexpr const char* kEndOfUtterance = "<end_of_utterance>";

std::vector<int32_t> find_stop_ids(const Processor::Parts& p, std::string_view template_text) {
  const auto from_tokenizer = [&] {
    std::vector<int32_t> ids;
    if (!p.tokenizer_config.eos_token) return ids;
    if (const auto id = p.tokenizer.find_token(*p.tokenizer_config.eos_token)) ids.push_back(*id);
    return ids;
  };
  // text_config comes last: released files carry the defaults of its class there, which never end an answer.
  std::vector<int32_t> ids = p.generation.eos_token_ids;
  if (ids.empty()) ids = p.config.eos_token_ids;
  if (ids.empty()) ids = from_tokenizer();
  if (ids.empty()) ids = p.config.text_config.eos_token_ids;
  const auto utterance = p.tokenizer.find_token(kEndOfUtterance);
  if (utterance && template_text.find(kEndOfUtterance) != std::string_view::npos) ids.push_back(*utterance);
  std::erase_if(ids, [&](int32_t id) { return id < 0 || id >= p.config.text_config.vocab_size; });
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return ids;
}

void check_range(const char* name, std::optional<int> value, int min, int max) {
  if (value && (*value < min || *value > max)) {
    throw Error(ErrorCode::kInvalidValue, fmt::format("{} is {}, wanted {} to {}", name, *value, min, max));
  }
}

// The checkpoint's image processor with the wishes of a request.
ImageProcessorConfig configure(const ImageProcessorConfig& base, const ImageOptions& options) {
  check_range("longest_edge", options.longest_edge, 1, 4096);
  check_range("max_tiles", options.max_tiles, 1, 10000);
  ImageProcessorConfig config = base;
  if (options.split) config.do_image_splitting = *options.split;
  if (options.longest_edge) {
    config.longest_edge = *options.longest_edge;
    config.height = config.width = std::nullopt;
  }
  return config;
}

// The configuration with which a picture of this size has at most max_tiles tiles: its long side is shortened by whole
// tiles, and at the end it is not split.
ImageProcessorConfig fit_tiles(ImageProcessorConfig config, int width, int height, std::optional<int> max_tiles) {
  if (!max_tiles || plan_frames(width, height, config).num_frames <= *max_tiles) return config;
  if (!config.height) {
    for (int tiles = (config.longest_edge - 1) / config.max_image_size; tiles >= 2; --tiles) {
      config.longest_edge = tiles * config.max_image_size;
      if (plan_frames(width, height, config).num_frames <= *max_tiles) return config;
    }
  }
  config.do_image_splitting = false;
  return config;
}

json::array to_json(std::span<const Message> messages) {
  json::array out;
  for (const Message& message : messages) {
    json::array parts;
    for (const ContentPart& part : message.content) {
      if (part.type == ContentPart::Type::kImage) {
        parts.emplace_back(json::object{{"type", "image"}});
      } else {
        parts.emplace_back(json::object{{"type", "text"}, {"text", part.text}});
      }
    }
    out.emplace_back(json::object{{"role", message.role}, {"content", std::move(parts)}});
  }
  return out;
}

void check_messages(std::span<const Message> messages) {
  if (messages.empty())
    throw Error(ErrorCode::kPromptEmpty, "messages: there are none; give at least one with a text or an image");
  bool anything = false;
  for (size_t m = 0; m < messages.size(); ++m) {
    if (messages[m].content.empty()) {
      throw Error(ErrorCode::kPromptEmpty,
                  fmt::format("message {}: has no content; give it a text or an image", m + 1));
    }
    if (!is_utf8(messages[m].role))
      throw Error(ErrorCode::kInvalidValue, fmt::format("message {}: the role is not UTF-8", m + 1));
    for (const ContentPart& part : messages[m].content) {
      if (!is_utf8(part.text))
        throw Error(ErrorCode::kInvalidValue, fmt::format("message {}: the text is not UTF-8", m + 1));
      anything = anything || part.type == ContentPart::Type::kImage || !part.text.empty();
    }
  }
  if (!anything)
    throw Error(ErrorCode::kPromptEmpty, "prompt: every text is empty and there is no image; write a question");
}

// Where the tiles' features go. The token before and behind each tile keeps its run apart from its neighbours'.
void locate_tiles(Prompt& prompt, int image_token_id, int image_seq_len, const std::string& folder) {
  int wanted = 0;
  for (const PromptImage& image : prompt.images) wanted += image.count;
  std::vector<int> places;
  for (size_t t = 0; t < prompt.ids.size(); ++t) {
    if (prompt.ids[t] == image_token_id) places.push_back(static_cast<int>(t));
  }
  if (std::ssize(places) != int64_t{wanted} * image_seq_len) {
    throw Error(
        ErrorCode::kBadModel,
        fmt::format(
            "{}: tokenizer.json: {} tiles of {} tokens became {} image tokens; \"<image>\" must be one special token",
            folder, wanted, image_seq_len, places.size()));
  }
  prompt.num_image_tokens = static_cast<int>(places.size());
  size_t next = 0;
  for (int i = 0; i < std::ssize(prompt.images); ++i) {
    for (int tile = 0; tile < prompt.images[static_cast<size_t>(i)].count;
         ++tile, next += static_cast<size_t>(image_seq_len)) {
      prompt.tiles.push_back({i, tile, places[next]});
    }
  }
}

// What the tokenizer gave must be what the model can embed.
void check_ids(const Processor::Parts& parts, std::span<const int32_t> ids) {
  if (ids.empty()) throw Error(ErrorCode::kPromptEmpty, "prompt: it has no tokens; write a question");
  for (const int32_t id : ids) {
    if (id >= parts.config.text_config.vocab_size) {
      throw Error(ErrorCode::kBadModel,
                  fmt::format("{}: the prompt contains token {} ({}), but the model has only {} embeddings",
                              parts.folder, id, parts.tokenizer.token_bytes(id), parts.config.text_config.vocab_size));
    }
  }
}

}  // namespace

Processor::Processor(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
Processor::Processor(Processor&&) noexcept = default;
Processor& Processor::operator=(Processor&&) noexcept = default;
Processor::~Processor() = default;

Processor Processor::load(const std::filesystem::path& folder, PictureDecoder decoder) {
  HuggingFaceConfig config = HuggingFaceConfig::load(folder);
  const std::filesystem::path tokenizer_file = folder / "tokenizer.json";
  const std::string tokenizer_text = read_file(tokenizer_file, Tokenizer::kMaxFileBytes, ErrorCode::kBadModel);
  auto parts = std::make_unique<Parts>(Parts{
      .folder = folder.string(),
      .config = std::move(config),
      .processor = load_processor_config(folder),
      .tokenizer_config = load_tokenizer_config(folder),
      .generation = GenerationConfig::load(folder),
      .tokenizer = Tokenizer::parse(tokenizer_text, tokenizer_file.string()),
      .chat_template = std::nullopt,
      .stop_ids = {},
      .limits = {},
      .decoder = std::move(decoder),
  });
  const std::string template_text = find_chat_template(folder).value_or("");
  if (!template_text.empty())
    parts->chat_template = ChatTemplate::parse(template_text, (folder / "chat template").string());
  const auto image_token = parts->tokenizer.find_token("<image>");
  if (image_token != parts->config.image_token_id) {
    throw Error(
        ErrorCode::kBadModel,
        fmt::format("{}: config.json: image_token_id is {}, but tokenizer.json has \"<image>\" as {}", folder.string(),
                    parts->config.image_token_id, image_token ? std::to_string(*image_token) : "no token at all"));
  }
  parts->stop_ids = find_stop_ids(*parts, template_text);
  return Processor(std::move(parts));
}

PromptImage Processor::cut(std::string_view file_bytes, const ImageOptions& options) const {
  return parts_->cut({file_bytes, options}, nullptr);
}

Image Processor::Parts::decode(std::string_view file_bytes) const {
  if (!decoder) return decode_image(std::as_bytes(std::span(file_bytes)), limits);
  DecodedPicture picture = decoder(file_bytes);
  const bool whole =
      picture.width >= 1 && picture.height >= 1 &&
      picture.rgb.size() == size_t{3} * static_cast<size_t>(picture.width) * static_cast<size_t>(picture.height);
  if (!whole) throw Error(ErrorCode::kInternal, "image: the picture decoder of the options gave no whole picture");
  return {picture.width, picture.height, std::move(picture.rgb)};
}

PromptImage Processor::Parts::cut(const PictureFile& file, CuttingThreads* threads) const {
  const ImageProcessorConfig wished = configure(processor.image, file.options);
  const Image image = decode(file.bytes);
  const ImageProcessorConfig fitting = fit_tiles(wished, image.width, image.height, file.options.max_tiles);
  const FramePlan plan = plan_frames(image.width, image.height, fitting);
  std::unique_lock<std::mutex> turn;
  if (threads != nullptr) turn = std::unique_lock(threads->turn);
  Frames frames = make_frames(image, fitting, threads != nullptr ? &threads->pool : nullptr);
  if (threads != nullptr) turn.unlock();
  if (frames.width != frames.height) {
    throw Error(ErrorCode::kInvalidValue, fmt::format("image: tiles of {} x {} pixels; the model takes square ones",
                                                      frames.width, frames.height));
  }
  return {.width = image.width,
          .height = image.height,
          .rows = frames.rows,
          .cols = frames.cols,
          .resized_width = plan.step1_width,
          .resized_height = plan.step1_height,
          .tiled_width = plan.step2_width,
          .tiled_height = plan.step2_height,
          .count = frames.count,
          .side = frames.width,
          .tiles = std::move(frames.rgb)};
}

Processor::ImageCost Processor::image_cost(int width, int height, const ImageOptions& options) const {
  const ImageProcessorConfig config =
      fit_tiles(configure(parts_->processor.image, options), width, height, options.max_tiles);
  const FramePlan plan = plan_frames(width, height, config);
  const int S = parts_->processor.image_seq_len;
  const auto tokens = parts_->tokenizer.encode(image_block({plan.rows, plan.cols}, S));
  return {.rows = plan.rows,
          .cols = plan.cols,
          .tiles = plan.num_frames,
          .tokens = static_cast<int>(tokens.size()),
          .image_tokens = plan.num_frames * S};
}

void Processor::pixel_values(std::span<const uint8_t> tile, int side, std::span<float> out) const {
  idefics::pixel_values(tile, side, side, parts_->processor.image, out);
}

Prompt Processor::prompt(std::span<const Message> messages, const PromptOptions& options) const {
  return parts_->prompt(messages, options, nullptr);
}

std::vector<PictureFile> pictures_of(std::span<const Message> messages, const ImageOptions& options) {
  std::vector<PictureFile> files;
  for (const Message& message : messages) {
    for (const ContentPart& part : message.content) {
      if (part.type != ContentPart::Type::kImage) continue;
      PictureFile file{part.image, options};
      if (part.options.split) file.options.split = part.options.split;
      if (part.options.longest_edge) file.options.longest_edge = part.options.longest_edge;
      if (part.options.max_tiles) file.options.max_tiles = part.options.max_tiles;
      files.push_back(file);
    }
  }
  return files;
}

Prompt Processor::Parts::prompt(std::span<const Message> messages, const PromptOptions& options,
                                CuttingThreads* threads, const ImageHooks& hooks) const {
  check_messages(messages);
  if (!chat_template) {
    throw Error(ErrorCode::kBadModel,
                fmt::format("{}: there is no chat template; add chat_template.jinja to the folder", folder));
  }
  ChatOptions chat;
  chat.add_generation_prompt = options.add_generation_prompt;
  chat.continue_final_message = options.continue_final_message;
  if (tokenizer_config.bos_token) chat.variables["bos_token"] = *tokenizer_config.bos_token;
  if (tokenizer_config.eos_token) chat.variables["eos_token"] = *tokenizer_config.eos_token;
  const ChatTemplate::Rendered rendered = render_chat(*chat_template, to_json(messages), chat);
  return build(rendered.text, rendered.untrusted, pictures_of(messages, options.images), false, threads, hooks);
}

Prompt Processor::raw_prompt(std::string_view text, std::span<const std::string> images,
                             const PromptOptions& options) const {
  std::vector<PictureFile> files;
  for (const std::string& image : images) files.push_back({image, options.images});
  return parts_->build(text, {}, files, true, nullptr, {});
}

Prompt Processor::Parts::build(std::string_view text, std::span<const TextRange> untrusted,
                               std::span<const PictureFile> files, bool add_special_tokens, CuttingThreads* threads,
                               const ImageHooks& hooks) const {
  const std::vector<size_t> places = find_placeholders(text, untrusted);
  if (places.size() != files.size()) {
    throw Error(ErrorCode::kTooManyImages,
                fmt::format("prompt: {} images, but the text has {} places for them (\"<image>\"); "
                            "give one image for each place",
                            files.size(), places.size()));
  }
  Prompt prompt;
  std::vector<Grid> grids;
  for (size_t i = 0; i < files.size(); ++i) {
    std::optional<PromptImage> image = hooks.find ? hooks.find(static_cast<int>(i)) : std::nullopt;
    if (!image) {
      try {
        image = cut(files[i], threads);
      } catch (const Error& e) {
        throw e.with_context(fmt::format("image {}", i + 1));
      }
      if (hooks.take) hooks.take(static_cast<int>(i), *image);
    }
    prompt.images.push_back(std::move(*image));
    grids.push_back({prompt.images.back().rows, prompt.images.back().cols});
  }
  ExpandedText expanded = expand_placeholders(text, untrusted, places, grids, processor.image_seq_len);
  prompt.ids = untrusted.empty()
                   ? tokenizer.encode(expanded.text, {.add_special_tokens = add_special_tokens, .untrusted = false})
                   : tokenizer.encode_mixed(expanded.text, expanded.untrusted);
  prompt.text = std::move(expanded.text);
  check_ids(*this, prompt.ids);
  locate_tiles(prompt, config.image_token_id, processor.image_seq_len, folder);
  return prompt;
}

Prompt Processor::Parts::plain_prompt(std::string_view text) const {
  if (!is_utf8(text)) throw Error(ErrorCode::kInvalidValue, "prompt: the text is not UTF-8");
  Prompt prompt;
  prompt.text = text;
  prompt.ids = tokenizer.encode(text, {.add_special_tokens = true, .untrusted = true});
  check_ids(*this, prompt.ids);
  return prompt;
}

Prompt Processor::Parts::token_prompt(std::vector<int32_t> ids) const {
  if (ids.empty()) throw Error(ErrorCode::kPromptEmpty, "prompt: it has no tokens; give at least one");
  for (const int32_t id : ids) {
    if (id < 0 || id >= config.text_config.vocab_size) {
      throw Error(ErrorCode::kInvalidValue, fmt::format("prompt: token id {} is outside the vocabulary of {}", id,
                                                        config.text_config.vocab_size));
    }
  }
  Prompt prompt;
  prompt.ids = std::move(ids);
  return prompt;
}

std::vector<int32_t> Processor::tokenize(std::string_view text, bool add_special_tokens, bool untrusted) const {
  return parts_->tokenizer.encode(text, {.add_special_tokens = add_special_tokens, .untrusted = untrusted});
}

std::string Processor::detokenize(std::span<const int32_t> ids, bool skip_special_tokens) const {
  return parts_->tokenizer.decode(ids, skip_special_tokens);
}

const ProcessorConfig& Processor::config() const { return parts_->processor; }
const std::vector<int32_t>& Processor::stop_ids() const { return parts_->stop_ids; }
int Processor::image_token_id() const { return parts_->config.image_token_id; }
int Processor::vocab_size() const { return parts_->config.text_config.vocab_size; }

}  // namespace idefics
