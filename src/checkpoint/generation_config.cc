#include "checkpoint/generation_config.h"

#include <fmt/format.h>

#include <limits>

#include "base/files.h"
#include "checkpoint/json_fields.h"

namespace idefics {

namespace {

std::optional<double> find_number(const JsonObject& o, std::string_view key, double min, double max) {
  const std::optional<double> number = o.find_number(key);
  if (number && (*number < min || *number > max)) {
    o.fail(key, fmt::format("is {}, wanted a number from {} to {}", *number, min, max));
  }
  return number;
}

std::optional<int> find_count(const JsonObject& o, std::string_view key) {
  const std::optional<int64_t> count = o.find_int(key, 0, std::numeric_limits<int32_t>::max());
  return count ? std::optional(static_cast<int>(*count)) : std::nullopt;
}

}  // namespace

GenerationConfig GenerationConfig::parse(std::string_view text, std::string_view where) {
  const json::value root = parse_json(text, where);
  const JsonObject o = JsonObject::of(root, std::string(where));
  GenerationConfig config;
  config.bos_token_id = find_token_id(o, "bos_token_id");
  config.eos_token_ids = find_token_ids(o, "eos_token_id");
  config.pad_token_id = find_token_id(o, "pad_token_id");
  config.do_sample = o.find_bool("do_sample");
  config.temperature = find_number(o, "temperature", 0.0, 1e6);
  config.top_k = find_count(o, "top_k");
  config.top_p = find_number(o, "top_p", 0.0, 1.0);
  config.repetition_penalty = find_number(o, "repetition_penalty", 1e-6, 1e6);
  config.max_length = find_count(o, "max_length");
  config.max_new_tokens = find_count(o, "max_new_tokens");
  return config;
}

GenerationConfig GenerationConfig::load(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / "generation_config.json";
  const std::optional<std::string> text = find_file(path, kMaxConfigBytes, ErrorCode::kBadModel);
  return text ? parse(*text, path.string()) : GenerationConfig{};
}

}  // namespace idefics
