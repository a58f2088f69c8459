// What a Processor is made of; for this library's own rooms.
#pragma once

#include <optional>

#include "checkpoint/generation_config.h"
#include "checkpoint/processor_files.h"
#include "idefics/config.h"
#include "idefics/processor.h"
#include "image/codec.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace idefics {

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

  // Expands `text`, whose ranges `untrusted` a user wrote, with the pictures `files`, and tokenises it.
  Prompt build(const Processor& self, std::string_view text, std::span<const TextRange> untrusted,
               std::span<const std::string_view> files, const ImageOptions& options, bool add_special_tokens) const;
};

}  // namespace idefics
