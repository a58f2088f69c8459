// The small files around a checkpoint that say how its input is prepared: image processor, chat template, special
// tokens. Errors: kBadModel, naming the file and the key.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "idefics/config.h"
#include "idefics/processor_config.h"

namespace idefics {

// Reads the image processor's keys from "image_processor" of processor_config.json (files of transformers 5) or, when
// there is no such key, from preprocessor_config.json (transformers 4); image_seq_len from processor_config.json.
// Refused: no image processor at all; a `size` that is neither longest_edge nor height and width; mean or std that are
// neither a number nor three.
ProcessorConfig load_processor_config(const std::filesystem::path& folder);
// The same from the files' texts; `processor` and `preprocessor` are nothing for files that do not exist.
ProcessorConfig parse_processor_config(std::optional<std::string_view> processor,
                                       std::optional<std::string_view> preprocessor,
                                       const std::filesystem::path& folder);

// Refuses a processor that does not fit the model: another number of image tokens a tile, another side of a tile.
void check_processor_config(const ProcessorConfig& processor, const Idefics3Config& config);

// The chat template of the model, if it has one. Where there are several, the reference's order decides:
// chat_template.json, chat_template.jinja, "chat_template" of processor_config.json, then of tokenizer_config.json. A
// list of named templates means the one named "default".
std::optional<std::string> find_chat_template(const std::filesystem::path& folder);

// tokenizer_config.json, and special_tokens_map.json for tokens it does not name.
struct TokenizerConfig {
  std::optional<std::string> bos_token, eos_token, pad_token, unk_token;
  std::optional<int> model_max_length;  // tokens; nothing when absent or the reference's "unlimited" (1e30)
};
// Empty when there is no such file.
TokenizerConfig load_tokenizer_config(const std::filesystem::path& folder);

}  // namespace idefics
