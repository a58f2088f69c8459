// generation_config.json: the ids at which generation ends, and sampling parameters if the checkpoint has any.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string_view>
#include <vector>

namespace idefics {

// Keys that are absent or null are empty: the caller's own defaults count.
struct GenerationConfig {
  std::optional<int> bos_token_id;
  std::vector<int32_t> eos_token_ids;  // eos_token_id, which may be a number or a list
  std::optional<int> pad_token_id;
  std::optional<bool> do_sample;
  std::optional<double> temperature;         // 0 or more
  std::optional<int> top_k;                  // 0 or more; 0 is off
  std::optional<double> top_p;               // 0 to 1
  std::optional<double> repetition_penalty;  // above 0
  std::optional<int> max_length;             // tokens, prompt included
  std::optional<int> max_new_tokens;

  // Errors: kBadModel, naming `where` and the key.
  static GenerationConfig parse(std::string_view text, std::string_view where);
  // Reads folder/generation_config.json; all empty when there is no such file.
  static GenerationConfig load(const std::filesystem::path& folder);
};

}  // namespace idefics
