#include "idefics/config.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/files.h"
#include "base/json.h"
#include "checkpoint/json_fields.h"
#include "idefics/error.h"

namespace idefics {

namespace {

// Far above every model of the family and its likely successors, and low enough that products of two fit 31 bits and
// all sums of sizes fit 63.
constexpr int kMaxWidth = 1 << 17;
constexpr int kMaxMlpWidth = 1 << 20;
constexpr int kMaxHeads = 1 << 14;
constexpr int kMaxHeadDim = 1 << 14;
constexpr int kMaxLayers = 1000;
constexpr int kMaxVocab = 1 << 22;
constexpr int kMaxPositions = 1 << 24;
constexpr int kMaxImageSize = 1 << 14;
constexpr int kMaxScale = 256;
constexpr int kMaxTokenId = 2147483647;

double get_number(const JsonObject& object, std::string_view key, double fallback, double min, double max) {
  const json::value* value = object.raw().if_contains(key);
  if (value == nullptr) return fallback;
  const std::optional<double> number = object.find_number(key);
  if (!number || *number < min || *number > max) {
    object.fail(key, fmt::format("is {}, wanted a number from {} to {}", describe(*value), min, max));
  }
  return *number;
}

double get_eps(const JsonObject& object, std::string_view key, double fallback) {
  return get_number(object, key, fallback, 1e-30, 1.0);
}

double get_theta(const JsonObject& object, double fallback) {
  return get_number(object, "rope_theta", fallback, 1.0, 1e15);
}

// A setting whose only implemented value is false.
void refuse_true(const JsonObject& object, std::string_view key) {
  if (object.find_bool(key).value_or(false)) object.fail(key, "is true, which is not supported");
}

void refuse_present(const JsonObject& object, std::string_view key) {
  if (const json::value* value = object.find(key)) {
    object.fail(key,
                fmt::format("is {}: quantized weights are not supported, use the original ones", describe(*value)));
  }
}

std::optional<Architecture> architecture_of(std::string_view name) {
  if (name == "Idefics3ForConditionalGeneration" || name == "idefics3") return Architecture::kIdefics3;
  if (name == "SmolVLMForConditionalGeneration" || name == "smolvlm") return Architecture::kSmolVlm;
  return std::nullopt;
}

Architecture read_architecture(const JsonObject& config) {
  constexpr std::string_view kWanted = "wanted Idefics3ForConditionalGeneration or SmolVLMForConditionalGeneration";
  std::optional<Architecture> from_list;
  if (const json::array* list = config.find_array("architectures"); list != nullptr && !list->empty()) {
    const json::value& first = list->front();
    if (first.is_string()) from_list = architecture_of(first.get_string());
    if (!from_list) config.fail("architectures", fmt::format("begins with {}, {}", describe(first), kWanted));
  }
  const std::optional<std::string> type = config.find_string("model_type");
  if (!type) {
    if (!from_list) config.fail("architectures", fmt::format("and model_type are missing, {}", kWanted));
    return *from_list;
  }
  const std::optional<Architecture> from_type = architecture_of(*type);
  if (!from_type)
    config.fail("model_type", fmt::format("is {}, wanted idefics3 or smolvlm", describe(json::value(*type))));
  if (from_list && *from_list != *from_type) {
    config.fail("model_type", fmt::format("is {}, but architectures says {}", *type, architecture_name(*from_list)));
  }
  return *from_type;
}

HuggingFaceVisionConfig read_vision(const JsonObject& o) {
  HuggingFaceVisionConfig v;
  v.hidden_size = get_int(o, "hidden_size", v.hidden_size, 1, kMaxWidth);
  v.intermediate_size = get_int(o, "intermediate_size", v.intermediate_size, 1, kMaxMlpWidth);
  v.num_hidden_layers = get_int(o, "num_hidden_layers", v.num_hidden_layers, 1, kMaxLayers);
  v.num_attention_heads = get_int(o, "num_attention_heads", v.num_attention_heads, 1, kMaxHeads);
  v.num_channels = get_int(o, "num_channels", v.num_channels, 1, 64);
  v.image_size = get_int(o, "image_size", v.image_size, 1, kMaxImageSize);
  v.patch_size = get_int(o, "patch_size", v.patch_size, 1, kMaxImageSize);
  v.hidden_act = o.find_string("hidden_act").value_or(v.hidden_act);
  v.layer_norm_eps = get_eps(o, "layer_norm_eps", v.layer_norm_eps);
  v.initializer_range = o.find_number("initializer_range").value_or(v.initializer_range);
  return v;
}

// The dict that describes the rotary embedding: rope_scaling (files of transformers 4) when it is there and not empty,
// which then replaces rope_parameters (transformers 5) as a whole.
std::optional<JsonObject> find_rope(const JsonObject& text) {
  std::optional<JsonObject> scaling = text.find_object("rope_scaling");
  if (scaling && !scaling->raw().empty()) return scaling;
  return text.find_object("rope_parameters");
}

void read_llama3_scaling(const JsonObject& o, int max_position_embeddings, RopeParameters& rope) {
  for (const auto& [key, field] :
       {std::pair{"factor", &rope.factor}, std::pair{"low_freq_factor", &rope.low_freq_factor},
        std::pair{"high_freq_factor", &rope.high_freq_factor}}) {
    if (o.find(key) == nullptr) o.fail(key, "is missing, rope_type llama3 needs it");
    *field = get_number(o, key, 1.0, 1e-3, 1e6);
  }
  rope.original_max_position_embeddings =
      get_int(o, "original_max_position_embeddings", max_position_embeddings, 1, kMaxPositions);
}

RopeParameters read_rope(const JsonObject& text, int max_position_embeddings) {
  RopeParameters rope;
  rope.rope_theta = get_theta(text, rope.rope_theta);
  rope.partial_rotary_factor = get_number(text, "partial_rotary_factor", 1.0, 0.0, 1.0);
  const std::optional<JsonObject> o = find_rope(text);
  if (!o) return rope;
  rope.rope_theta = get_theta(*o, rope.rope_theta);
  rope.partial_rotary_factor =
      std::min(rope.partial_rotary_factor, get_number(*o, "partial_rotary_factor", 1.0, 0.0, 1.0));
  std::optional<std::string> type = o->find_string("rope_type");
  if (!type) type = o->find_string("type");
  rope.rope_type = type.value_or("default");
  if (rope.rope_type == "llama3") read_llama3_scaling(*o, max_position_embeddings, rope);
  return rope;
}

void refuse_text_variants(const JsonObject& o) {
  if (const auto type = o.find_string("model_type"); type && *type != "llama") {
    o.fail("model_type", fmt::format("is {}, wanted llama", describe(json::value(*type))));
  }
  refuse_present(o, "quantization_config");
  for (const char* key : {"qk_layer_norms", "use_resampler", "rope_interleaved"}) refuse_true(o, key);
}

HuggingFaceTextConfig read_text(const JsonObject& o) {
  refuse_text_variants(o);
  HuggingFaceTextConfig t;
  t.vocab_size = get_int(o, "vocab_size", t.vocab_size, 1, kMaxVocab);
  t.hidden_size = get_int(o, "hidden_size", t.hidden_size, 1, kMaxWidth);
  t.intermediate_size = get_int(o, "intermediate_size", t.intermediate_size, 1, kMaxMlpWidth);
  t.num_hidden_layers = get_int(o, "num_hidden_layers", t.num_hidden_layers, 1, kMaxLayers);
  t.num_attention_heads = get_int(o, "num_attention_heads", t.num_attention_heads, 1, kMaxHeads);
  if (t.hidden_size % t.num_attention_heads != 0) {
    o.fail("num_attention_heads",
           fmt::format("is {}, which does not divide hidden_size {}", t.num_attention_heads, t.hidden_size));
  }
  t.num_key_value_heads =
      static_cast<int>(o.find_int("num_key_value_heads", 1, kMaxHeads).value_or(t.num_attention_heads));
  t.head_dim = static_cast<int>(o.find_int("head_dim", 1, kMaxHeadDim).value_or(t.hidden_size / t.num_attention_heads));
  t.hidden_act = o.find_string("hidden_act").value_or(t.hidden_act);
  t.max_position_embeddings = get_int(o, "max_position_embeddings", t.max_position_embeddings, 1, kMaxPositions);
  t.rms_norm_eps = get_eps(o, "rms_norm_eps", t.rms_norm_eps);
  t.attention_bias = o.find_bool("attention_bias").value_or(false);
  t.mlp_bias = o.find_bool("mlp_bias").value_or(false);
  t.rope_parameters = read_rope(o, t.max_position_embeddings);
  t.bos_token_id = find_token_id(o, "bos_token_id");
  t.eos_token_ids = find_token_ids(o, "eos_token_id");
  t.pad_token_id = find_token_id(o, "pad_token_id");
  return t;
}

void check_patch_grid(const HuggingFaceConfig& hf) {
  const HuggingFaceVisionConfig& v = hf.vision_config;
  const int n = v.image_size / v.patch_size;
  if (n == 0) {
    throw Error(ErrorCode::kBadModel, fmt::format("{}: vision_config: patch_size is {}, wanted at most image_size {}",
                                                  hf.where, v.patch_size, v.image_size));
  }
  if (n % hf.scale_factor != 0) {
    throw Error(
        ErrorCode::kBadModel,
        fmt::format(
            "{}: scale_factor is {}, which does not divide the {} patches a side (image_size {} / patch_size {})",
            hf.where, hf.scale_factor, n, v.image_size, v.patch_size));
  }
  const int tokens = (n / hf.scale_factor) * (n / hf.scale_factor);
  if (hf.image_seq_len && *hf.image_seq_len != tokens) {
    throw Error(ErrorCode::kBadModel,
                fmt::format("{}: image_seq_len is {}, but a tile of this vision_config gives {} tokens", hf.where,
                            *hf.image_seq_len, tokens));
  }
}

void check_vision(const HuggingFaceConfig& hf) {
  const HuggingFaceVisionConfig& v = hf.vision_config;
  const auto fail = [&](const std::string& problem) {
    throw Error(ErrorCode::kBadModel, fmt::format("{}: vision_config: {}", hf.where, problem));
  };
  if (v.hidden_size % v.num_attention_heads != 0) {
    fail(fmt::format("num_attention_heads is {}, which does not divide hidden_size {}", v.num_attention_heads,
                     v.hidden_size));
  }
  if (v.num_channels != 3) fail(fmt::format("num_channels is {}, wanted 3", v.num_channels));
  if (v.hidden_act != "gelu_pytorch_tanh") {
    fail(fmt::format("hidden_act is {}, wanted gelu_pytorch_tanh", describe(json::value(v.hidden_act))));
  }
  check_patch_grid(hf);
}

void check_text(const HuggingFaceConfig& hf) {
  const HuggingFaceTextConfig& t = hf.text_config;
  const auto fail = [&](const std::string& problem) {
    throw Error(ErrorCode::kBadModel, fmt::format("{}: text_config: {}", hf.where, problem));
  };
  if (t.num_attention_heads % t.num_key_value_heads != 0) {
    fail(fmt::format("num_key_value_heads is {}, which does not divide num_attention_heads {}", t.num_key_value_heads,
                     t.num_attention_heads));
  }
  if (t.head_dim % 2 != 0) fail(fmt::format("head_dim is {}, wanted an even number", t.head_dim));
  if (t.hidden_act != "silu") fail(fmt::format("hidden_act is {}, wanted silu", describe(json::value(t.hidden_act))));
  const RopeParameters& rope = t.rope_parameters;
  if (rope.rope_type != "default" && rope.rope_type != "llama3") {
    fail(fmt::format("rope_type is {}, wanted default or llama3", describe(json::value(rope.rope_type))));
  }
  if (rope.partial_rotary_factor != 1.0)
    fail(fmt::format("partial_rotary_factor is {}, wanted 1", rope.partial_rotary_factor));
  if (rope.rope_type == "llama3" &&
      !(static_cast<float>(*rope.high_freq_factor) > static_cast<float>(*rope.low_freq_factor))) {
    fail(fmt::format("high_freq_factor is {}, wanted more than low_freq_factor {}", *rope.high_freq_factor,
                     *rope.low_freq_factor));
  }
  if (hf.image_token_id >= t.vocab_size) {
    throw Error(ErrorCode::kBadModel,
                fmt::format("{}: image_token_id is {}, wanted less than text_config.vocab_size {}", hf.where,
                            hf.image_token_id, t.vocab_size));
  }
}

void check_choices(const ModelConfig& model) {
  const auto fail = [](const std::string& problem) { throw Error(ErrorCode::kInvalidValue, problem); };
  if (model.devices.size() != 1 || model.devices[0] != DeviceRef{}) fail("devices: wanted exactly one, cpu:0");
  if (model.dtype != DType::kF32 && model.dtype != DType::kBf16) {
    fail(fmt::format("dtype is {}, wanted float32 or bfloat16", dtype_name(model.dtype)));
  }
  if (model.kv_cache.dtype == DType::kF16) fail("kv_cache: dtype is float16, wanted float32, bfloat16 or q8");
  if (model.kv_cache.page_size < 1 || model.kv_cache.page_size > kMaxPositions) {
    fail(fmt::format("kv_cache: page_size is {}, wanted 1 to {}", model.kv_cache.page_size, kMaxPositions));
  }
}

int check_max_seq_len(int length, const HuggingFaceConfig& hf) {
  const int limit = hf.text_config.max_position_embeddings;
  if (length < 1 || length > limit) {
    throw Error(
        ErrorCode::kInvalidValue,
        fmt::format("max_length is {}, wanted 1 to {} (max_position_embeddings of {})", length, limit, hf.where));
  }
  return length;
}

int max_seq_len_of(const ModelConfig& model, const HuggingFaceConfig& hf) {
  return model.max_length ? check_max_seq_len(*model.max_length, hf) : hf.text_config.max_position_embeddings;
}

KVCacheParams make_kv_params(const ModelConfig& model, const HuggingFaceTextConfig& text) {
  KVCacheParams kv;
  kv.dtype = model.kv_cache.dtype.value_or(model.dtype);
  kv.n_kv_heads = text.num_key_value_heads;
  kv.head_dim = text.head_dim;
  kv.num_layers = text.num_hidden_layers;
  kv.page_size = model.kv_cache.page_size;
  kv.enable_prefix_caching = model.kv_cache.enable_prefix_caching;
  kv.devices = model.devices;
  return kv;
}

Llama3Config make_text_config(const ModelConfig& model, const HuggingFaceConfig& hf) {
  check_text(hf);
  const HuggingFaceTextConfig& t = hf.text_config;
  Llama3Config c;
  c.vocab_size = t.vocab_size;
  c.hidden_size = t.hidden_size;
  c.intermediate_size = t.intermediate_size;
  c.num_hidden_layers = t.num_hidden_layers;
  c.num_attention_heads = t.num_attention_heads;
  c.num_key_value_heads = t.num_key_value_heads;
  c.head_dim = t.head_dim;
  c.max_position_embeddings = t.max_position_embeddings;
  c.rms_norm_eps = t.rms_norm_eps;
  c.attention_bias = t.attention_bias;
  c.mlp_bias = t.mlp_bias;
  c.rope_theta = t.rope_parameters.rope_theta;
  if (t.rope_parameters.rope_type == "llama3") {
    c.rope_scaling_params = Llama3RopeScalingParams{*t.rope_parameters.factor, *t.rope_parameters.low_freq_factor,
                                                    *t.rope_parameters.high_freq_factor,
                                                    *t.rope_parameters.original_max_position_embeddings};
  }
  c.tie_word_embeddings = hf.tie_word_embeddings;
  c.dtype = c.norm_dtype = model.dtype;
  c.devices = model.devices;
  c.kv_params = make_kv_params(model, t);
  return c;
}

Idefics3VisionConfig make_vision_config(const ModelConfig& model, const HuggingFaceConfig& hf,
                                        int text_config_hidden_size) {
  check_vision(hf);
  const HuggingFaceVisionConfig& v = hf.vision_config;
  Idefics3VisionConfig c;
  c.dtype = model.dtype;
  c.hidden_size = v.hidden_size;
  c.intermediate_size = v.intermediate_size;
  c.image_size = v.image_size;
  c.patch_size = v.patch_size;
  c.num_channels = v.num_channels;
  c.num_attention_heads = v.num_attention_heads;
  c.head_dim = v.hidden_size / v.num_attention_heads;
  c.layer_norm_eps = v.layer_norm_eps;
  c.hidden_act = v.hidden_act;
  c.num_hidden_layers = v.num_hidden_layers;
  c.initializer_range = v.initializer_range;
  c.scale_factor = hf.scale_factor;
  c.text_config_hidden_size = text_config_hidden_size;
  return c;
}

}  // namespace

std::string_view architecture_name(Architecture architecture) {
  return architecture == Architecture::kIdefics3 ? "Idefics3ForConditionalGeneration"
                                                 : "SmolVLMForConditionalGeneration";
}

std::string_view dtype_name(DType dtype) {
  switch (dtype) {
    case DType::kF32: return "float32";
    case DType::kBf16: return "bfloat16";
    case DType::kF16: return "float16";
    case DType::kQ8: return "q8";
  }
  return "?";
}

HuggingFaceConfig HuggingFaceConfig::parse(std::string_view config_json, std::string_view where) {
  const json::value root = parse_json(config_json, where);
  const JsonObject o = JsonObject::of(root, std::string(where));
  refuse_present(o, "quantization_config");
  refuse_present(o, "quantization");  // what MLX calls it
  for (const char* key : {"qk_layer_norms", "use_resampler", "rope_interleaved"}) refuse_true(o, key);

  HuggingFaceConfig config;
  config.where = where;
  config.architecture = read_architecture(o);
  config.image_token_id = get_int(o, "image_token_id", config.image_token_id, 0, kMaxTokenId);
  config.scale_factor = get_int(o, "scale_factor", config.scale_factor, 1, kMaxScale);
  config.tie_word_embeddings = o.find_bool("tie_word_embeddings").value_or(false);
  if (const auto length = o.find_int("image_seq_len", 1, kMaxTokenId)) config.image_seq_len = static_cast<int>(*length);
  config.bos_token_id = find_token_id(o, "bos_token_id");
  config.eos_token_ids = find_token_ids(o, "eos_token_id");
  config.pad_token_id = find_token_id(o, "pad_token_id");
  config.dtype = o.find_string("dtype");
  if (!config.dtype) config.dtype = o.find_string("torch_dtype");
  if (const auto vision = o.find_object("vision_config")) config.vision_config = read_vision(*vision);
  if (const auto text = o.find_object("text_config")) {
    config.text_config = read_text(*text);
  } else {
    config.text_config.rms_norm_eps = 1e-5;  // the reference's default for a missing text_config, not for a missing key
  }
  return config;
}

HuggingFaceConfig HuggingFaceConfig::load(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / "config.json";
  return parse(read_file(path, kMaxConfigBytes, ErrorCode::kBadModel), path.string());
}

Idefics3VisionConfig Idefics3VisionConfig::initialize_from_config(const PipelineConfig& pipeline_config,
                                                                  const HuggingFaceConfig& huggingface_config,
                                                                  int text_config_hidden_size) {
  return make_vision_config(pipeline_config.model, huggingface_config, text_config_hidden_size);
}

int Idefics3Config::image_seq_len() const {
  if (vision_config.patch_size < 1 || scale_factor < 1) {
    throw Error(ErrorCode::kInvalidValue,
                fmt::format("image_seq_len: patch_size is {} and scale_factor {}, wanted 1 or more",
                            vision_config.patch_size, scale_factor));
  }
  const int64_t n = vision_config.image_size / vision_config.patch_size;
  return static_cast<int>(n * n / (int64_t{scale_factor} * scale_factor));
}

Idefics3Config Idefics3Config::initialize(const PipelineConfig& pipeline_config, const ModelConfig* model_config,
                                          std::optional<int> max_seq_len) {
  const ModelConfig& model = model_config != nullptr ? *model_config : pipeline_config.model;
  if (!model.huggingface_config) {
    throw Error(ErrorCode::kInvalidValue, "huggingface_config is missing: load it from the model's config.json first");
  }
  check_choices(model);
  const HuggingFaceConfig& hf = *model.huggingface_config;
  Idefics3Config config;
  config.architecture = hf.architecture;
  config.devices = model.devices;
  config.scale_factor = hf.scale_factor;
  config.image_token_id = hf.image_token_id;
  config.text_config = make_text_config(model, hf);
  config.vision_config = make_vision_config(model, hf, hf.text_config.hidden_size);
  config.text_config.max_seq_len = max_seq_len ? check_max_seq_len(*max_seq_len, hf) : max_seq_len_of(model, hf);
  return config;
}

void Idefics3Config::finalize(const HuggingFaceConfig& huggingface_config, const StateDict& llm_state_dict,
                              ReturnLogits return_logits, NormMethod norm_method) {
  constexpr std::string_view kNorm = "model.text_model.layers.0.input_layernorm.weight";
  const auto norm = llm_state_dict.dtypes.find(kNorm);
  if (norm == llm_state_dict.dtypes.end()) {
    throw Error(ErrorCode::kBadModel, fmt::format("weights: tensor {} is missing", kNorm));
  }
  const bool has_head = llm_state_dict.dtypes.contains("lm_head.weight");
  text_config.tie_word_embeddings =
      !has_head || (huggingface_config.tie_word_embeddings && llm_state_dict.head_equals_embedding);
  text_config.norm_method = norm_method;
  text_config.norm_dtype = norm->second;
  text_config.rms_norm_eps = huggingface_config.text_config.rms_norm_eps;
  text_config.return_logits = return_logits;
}

int Idefics3Config::get_num_layers(const HuggingFaceConfig& huggingface_config) {
  return huggingface_config.text_config.num_hidden_layers;
}

int Idefics3Config::calculate_max_seq_len(const PipelineConfig& pipeline_config,
                                          const HuggingFaceConfig& huggingface_config) {
  return max_seq_len_of(pipeline_config.model, huggingface_config);
}

}  // namespace idefics
