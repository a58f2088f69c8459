#include "checkpoint/processor_files.h"

#include <fmt/format.h>

#include <cmath>
#include <limits>

#include "base/files.h"
#include "base/json.h"
#include "checkpoint/json_fields.h"

namespace idefics {

namespace {

constexpr int kMaxSide = 1 << 16;  // pixels of a resized picture
constexpr int kMaxTile = 1 << 14;  // pixels
constexpr int kMaxImageTokens = 1 << 20;
constexpr uint64_t kMaxTemplateBytes = uint64_t{1} << 20;

std::optional<int> find_side(const JsonObject& o, std::string_view key, int max) {
  const std::optional<int64_t> side = o.find_int(key, 1, max);
  return side ? std::optional(static_cast<int>(*side)) : std::nullopt;
}

void read_size(const JsonObject& o, ImageProcessorConfig& config) {
  const std::optional<JsonObject> size = o.find_object("size");
  if (!size) return;
  const std::optional<int> edge = find_side(*size, "longest_edge", kMaxSide);
  config.height = find_side(*size, "height", kMaxSide);
  config.width = find_side(*size, "width", kMaxSide);
  const bool fixed = config.height && config.width;
  if (edge.has_value() == fixed || config.height.has_value() != config.width.has_value()) {
    o.fail("size", "is not understood, wanted {\"longest_edge\"} or {\"height\", \"width\"}");
  }
  if (edge) config.longest_edge = *edge;
}

void read_max_image_size(const JsonObject& o, ImageProcessorConfig& config) {
  const std::optional<JsonObject> size = o.find_object("max_image_size");
  if (!size) return;
  const std::optional<int> edge = find_side(*size, "longest_edge", kMaxTile);
  if (!edge) o.fail("max_image_size", "is not understood, wanted {\"longest_edge\"}");
  config.max_image_size = *edge;
}

float to_float(const JsonObject& o, std::string_view key, const json::value& value) {
  boost::system::error_code error;
  const double number = value.is_number() ? value.to_number<double>(error) : std::nan("");
  if (error || !(std::abs(number) <= double{std::numeric_limits<float>::max()})) {
    o.fail(key, fmt::format("holds {}, wanted numbers", describe(value)));
  }
  return static_cast<float>(number);
}

// One value for each channel, or a single one for all of them.
void read_channels(const JsonObject& o, std::string_view key, std::array<float, 3>& out) {
  const json::value* value = o.find(key);
  if (value == nullptr) return;
  if (!value->is_array()) {
    out.fill(to_float(o, key, *value));
    return;
  }
  const json::array& list = value->get_array();
  if (list.size() != out.size()) o.fail(key, fmt::format("has {} values, wanted one number or three", list.size()));
  for (size_t c = 0; c < out.size(); ++c) out[c] = to_float(o, key, list[c]);
}

ImageProcessorConfig read_image_processor(const JsonObject& o) {
  ImageProcessorConfig config;
  const auto flag = [&](std::string_view key, bool& field) { field = o.find_bool(key).value_or(field); };
  flag("do_convert_rgb", config.do_convert_rgb);
  flag("do_resize", config.do_resize);
  flag("do_image_splitting", config.do_image_splitting);
  flag("do_rescale", config.do_rescale);
  flag("do_normalize", config.do_normalize);
  flag("do_pad", config.do_pad);
  read_size(o, config);
  read_max_image_size(o, config);
  if (const auto filter = o.find_int("resample", 0, 5)) config.resample = static_cast<Resample>(*filter);
  config.rescale_factor = o.find_number("rescale_factor").value_or(config.rescale_factor);
  read_channels(o, "image_mean", config.image_mean);
  read_channels(o, "image_std", config.image_std);
  for (const float std : config.image_std) {
    if (std == 0.0f) o.fail("image_std", "holds 0, by which pixels cannot be divided");
  }
  return config;
}

// A token as text: a string, or an object of which "content" is the text.
std::optional<std::string> find_token(const JsonObject& o, std::string_view key) {
  const json::value* value = o.find(key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_object()) return o.find_string(key);
  std::optional<std::string> content = o.find_object(key)->find_string("content");
  if (!content) o.fail(key, "is an object without \"content\"");
  return content;
}

void add_tokens(const JsonObject& o, TokenizerConfig& config) {
  const auto add = [&](std::string_view key, std::optional<std::string>& token) {
    if (!token) token = find_token(o, key);
  };
  add("bos_token", config.bos_token);
  add("eos_token", config.eos_token);
  add("pad_token", config.pad_token);
  add("unk_token", config.unk_token);
}

std::optional<std::string> default_of_named(const JsonObject& o, const json::array& list) {
  for (size_t i = 0; i < list.size(); ++i) {
    const JsonObject entry = JsonObject::of(list[i], fmt::format("{}: chat_template[{}]", o.name(), i));
    if (entry.find_string("name") != "default") continue;
    if (auto text = entry.find_string("template")) return text;
    entry.fail("template", "is missing");
  }
  o.fail("chat_template", fmt::format("is a list of {} templates, none of them named default", list.size()));
}

std::optional<std::string> template_of_key(const JsonObject& o) {
  const json::value* value = o.find("chat_template");
  if (value != nullptr && value->is_array()) return default_of_named(o, value->get_array());
  return o.find_string("chat_template");
}

std::optional<std::string> find_template_in(const std::filesystem::path& path) {
  const std::optional<std::string> text = find_file(path, kMaxTokenizerConfigBytes, ErrorCode::kBadModel);
  if (!text) return std::nullopt;
  const json::value root = parse_json(*text, path.string());
  return template_of_key(JsonObject::of(root, path.string()));
}

void read_tokenizer_file(const std::filesystem::path& path, TokenizerConfig& config) {
  const std::optional<std::string> text = find_file(path, kMaxTokenizerConfigBytes, ErrorCode::kBadModel);
  if (!text) return;
  const json::value root = parse_json(*text, path.string());
  const JsonObject o = JsonObject::of(root, path.string());
  add_tokens(o, config);
  // Not find_int: "unlimited" is a whole number of 31 digits.
  if (const std::optional<double> length = o.find_number("model_max_length")) {
    if (*length < 1) o.fail("model_max_length", fmt::format("is {}, wanted 1 or more", *length));
    if (*length <= std::numeric_limits<int>::max()) config.model_max_length = static_cast<int>(*length);
  }
}

}  // namespace

ProcessorConfig parse_processor_config(std::optional<std::string_view> processor,
                                       std::optional<std::string_view> preprocessor,
                                       const std::filesystem::path& folder) {
  ProcessorConfig config;
  if (processor) {
    const std::string where = (folder / "processor_config.json").string();
    const json::value root = parse_json(*processor, where);
    const JsonObject o = JsonObject::of(root, where);
    config.image_seq_len = get_int(o, "image_seq_len", config.image_seq_len, 1, kMaxImageTokens);
    if (const auto merged = o.find_object("image_processor")) {
      config.image = read_image_processor(*merged);
      return config;
    }
  }
  const std::string where = (folder / "preprocessor_config.json").string();
  if (!preprocessor) {
    throw Error(ErrorCode::kBadModel,
                fmt::format("{}: no such file, and no image_processor in processor_config.json: one of them "
                            "must describe the image processor",
                            where));
  }
  const json::value root = parse_json(*preprocessor, where);
  config.image = read_image_processor(JsonObject::of(root, where));
  return config;
}

ProcessorConfig load_processor_config(const std::filesystem::path& folder) {
  return parse_processor_config(find_file(folder / "processor_config.json", kMaxConfigBytes, ErrorCode::kBadModel),
                                find_file(folder / "preprocessor_config.json", kMaxConfigBytes, ErrorCode::kBadModel),
                                folder);
}

void check_processor_config(const ProcessorConfig& processor, const Idefics3Config& config) {
  if (processor.image_seq_len != config.image_seq_len()) {
    throw Error(ErrorCode::kBadModel,
                fmt::format("processor_config.json: image_seq_len is {}, but a tile of this model gives {} tokens",
                            processor.image_seq_len, config.image_seq_len()));
  }
  if (processor.image.max_image_size != config.vision_config.image_size) {
    throw Error(ErrorCode::kBadModel,
                fmt::format("image processor: max_image_size is {}, but vision_config.image_size of config.json is {}",
                            processor.image.max_image_size, config.vision_config.image_size));
  }
}

std::optional<std::string> find_chat_template(const std::filesystem::path& folder) {
  if (auto text = find_template_in(folder / "chat_template.json")) return text;
  if (auto text = find_file(folder / "chat_template.jinja", kMaxTemplateBytes, ErrorCode::kBadModel)) return text;
  if (auto text = find_template_in(folder / "processor_config.json")) return text;
  return find_template_in(folder / "tokenizer_config.json");
}

TokenizerConfig load_tokenizer_config(const std::filesystem::path& folder) {
  TokenizerConfig config;
  read_tokenizer_file(folder / "tokenizer_config.json", config);
  read_tokenizer_file(folder / "special_tokens_map.json", config);
  return config;
}

}  // namespace idefics
