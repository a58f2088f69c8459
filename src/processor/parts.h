// What a Processor is made of; for this library's own rooms.
#pragma once

#include <functional>
#include <mutex>
#include <optional>

#include "base/thread_pool.h"
#include "checkpoint/generation_config.h"
#include "checkpoint/processor_files.h"
#include "idefics/config.h"
#include "idefics/processor.h"
#include "image/codec.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace idefics {

// Threads for cutting pictures that several callers share: they take turns.
struct CuttingThreads {
  explicit CuttingThreads(int num_threads) : pool(num_threads) {}
  std::mutex turn;  // held by who uses the pool
  ThreadPool pool;
};

// A picture of a prompt: an encoded file, and how it is to be cut.
struct PictureFile {
  std::string_view bytes;
  ImageOptions options;
};
// The pictures of these messages in order. What a picture does not say about itself is as `options` say.
std::vector<PictureFile> pictures_of(std::span<const Message> messages, const ImageOptions& options);

struct Processor::Parts {
  std::string folder;  // names the checkpoint in errors
  HuggingFaceConfig config;
  ProcessorConfig processor;
  TokenizerConfig tokenizer_config;
  GenerationConfig generation;
  Tokenizer tokenizer;
  std::optional<ChatTemplate> chat_template;
  std::vector<int32_t> stop_ids;
  ImageLimits limits;
  PictureDecoder decoder;  // empty: decode_image

  Image decode(std::string_view file_bytes) const;

  // Called for each picture of a prompt. `find` may give what is known of a picture, so that it need not be cut; `take`
  // gets one that was cut just now. Both may leave the tiles out, so that not all pictures are in memory at once.
  struct ImageHooks {
    std::function<std::optional<PromptImage>(int index)> find;
    std::function<void(int index, PromptImage& image)> take;
  };

  // Processor::prompt and Processor::cut with `threads`, which may be null. Decoding does not use them: pictures that
  // take long there keep nobody else from cutting.
  Prompt prompt(std::span<const Message> messages, const PromptOptions& options, CuttingThreads* threads,
                const ImageHooks& hooks = {}) const;
  // The prompt of plain text, in which nothing is a control token.
  Prompt plain_prompt(std::string_view text) const;
  // The prompt of ids that a user gave. None of them is a picture's place.
  Prompt token_prompt(std::vector<int32_t> ids) const;
  PromptImage cut(const PictureFile& file, CuttingThreads* threads) const;
  // Expands `text`, whose ranges `untrusted` a user wrote, with the pictures `files`, and tokenises it.
  Prompt build(std::string_view text, std::span<const TextRange> untrusted, std::span<const PictureFile> files,
               bool add_special_tokens, CuttingThreads* threads, const ImageHooks& hooks) const;
};

}  // namespace idefics
