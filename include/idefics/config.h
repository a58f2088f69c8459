// The configuration of a model in three steps: what config.json says (HuggingFaceConfig), what the user chose
// (PipelineConfig), and what the network is built from (Idefics3Config).
//
//   PipelineConfig pipeline;
//   pipeline.model.huggingface_config = HuggingFaceConfig::load("models/x");
//   Idefics3Config config = Idefics3Config::initialize(pipeline);
//   config.image_seq_len();  // image tokens a tile takes
//
// Errors of everything here: Error{kBadModel} naming the file and the key, unless a function says otherwise.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace idefics {

// The two architectures share the network; they differ in their processors.
enum class Architecture { kIdefics3, kSmolVlm };
// The name in config.json, e.g. "Idefics3ForConditionalGeneration".
std::string_view architecture_name(Architecture architecture);

// Number formats. kF16 is only a format of files, kQ8 (8 bits and scales) only one of keys and values; the engine
// computes in the other two.
enum class DType { kF32, kBf16, kF16, kQ8 };
// "float32", "bfloat16", "float16", "q8".
std::string_view dtype_name(DType dtype);

struct DeviceRef {
  std::string label = "cpu";
  int id = 0;
  bool operator==(const DeviceRef&) const = default;
};

// ---- What config.json says -----------------------------------------------------------------------------------------

// rope_scaling, rope_parameters and rope_theta of either generation of files, brought into one form.
struct RopeParameters {
  std::string rope_type = "default";
  double rope_theta = 10000.0;
  std::optional<double> factor, low_freq_factor, high_freq_factor;
  std::optional<int> original_max_position_embeddings;
  double partial_rotary_factor = 1.0;
};

// vision_config, with the reference's defaults for keys that are absent.
struct HuggingFaceVisionConfig {
  int hidden_size = 1152;
  int intermediate_size = 3072;
  int num_hidden_layers = 12;
  int num_attention_heads = 16;
  int num_channels = 3;
  int image_size = 224;
  int patch_size = 32;
  std::string hidden_act = "gelu_pytorch_tanh";
  double layer_norm_eps = 1e-6;
  double initializer_range = 0.02;
};

// text_config, likewise. num_key_value_heads and head_dim are filled in when they are absent or null.
struct HuggingFaceTextConfig {
  int vocab_size = 32000;
  int hidden_size = 4096;
  int intermediate_size = 11008;
  int num_hidden_layers = 32;
  int num_attention_heads = 32;
  int num_key_value_heads = 32;
  int head_dim = 128;
  std::string hidden_act = "silu";
  int max_position_embeddings = 2048;
  double rms_norm_eps = 1e-6;
  bool attention_bias = false;
  bool mlp_bias = false;
  RopeParameters rope_parameters;
  std::optional<int> bos_token_id, pad_token_id;
  std::vector<int32_t> eos_token_ids;
};

// config.json as transformers reads it. Parsing refuses what the reference refuses, values of a wrong type or beyond
// any sensible size, and options that change the network in ways that are not implemented (quantization_config,
// qk_layer_norms, ...). Whether the values fit together and can be run is decided by Idefics3Config::initialize.
struct HuggingFaceConfig {
  std::string where = "config.json";  // names the file in errors
  Architecture architecture = Architecture::kIdefics3;
  int image_token_id = 128257;
  int scale_factor = 2;
  bool tie_word_embeddings = false;
  std::optional<int> image_seq_len;
  std::optional<int> bos_token_id, pad_token_id;
  std::vector<int32_t> eos_token_ids;
  std::optional<std::string> dtype;  // the format the weights were saved in, as text; informational
  HuggingFaceVisionConfig vision_config;
  HuggingFaceTextConfig text_config;

  static HuggingFaceConfig parse(std::string_view config_json, std::string_view where);
  // Reads folder/config.json.
  static HuggingFaceConfig load(const std::filesystem::path& folder);
};

// ---- What the user chose -------------------------------------------------------------------------------------------

struct KVCacheConfig {
  int page_size = 128;  // tokens
  bool enable_prefix_caching = true;
  std::optional<DType> dtype;  // of keys and values, but for kF16; nothing: as ModelConfig::dtype
};

struct ModelConfig {
  std::filesystem::path model_path;
  std::optional<HuggingFaceConfig> huggingface_config;
  DType dtype = DType::kBf16;  // weights and activations
  std::vector<DeviceRef> devices = {DeviceRef{}};
  std::optional<int> max_length;  // tokens of a sequence; nothing: what the model allows
  KVCacheConfig kv_cache;
};

struct PipelineConfig {
  ModelConfig model;
};

// ---- What the network is built from --------------------------------------------------------------------------------

enum class NormMethod { kRmsNorm };

// Which positions of a step get logits: the last one of each sequence, the last n, or all.
enum class ReturnLogits { kLastToken, kVariable, kAll };

// Which hidden states a step gives out, float32; B sequences, T tokens, E text width.
enum class ReturnHiddenStates {
  kNone,
  kLast,            // [B, E] of the last token of each sequence, before the final norm
  kAll,             // [T, E] of all tokens, before the final norm
  kAllNormalized,   // [T, E] behind the final norm
  kSelectedLayers,  // [layers, T, E]: 0 is the embedded input with the image features in it, i the output of layer i
};

struct KVCacheParams {
  DType dtype = DType::kBf16;
  int n_kv_heads = 0;
  int head_dim = 0;
  int num_layers = 0;
  int page_size = 128;  // tokens
  bool enable_prefix_caching = true;
  std::vector<DeviceRef> devices;
};

struct Llama3RopeScalingParams {
  double factor = 1.0;
  double low_freq_factor = 1.0;
  double high_freq_factor = 4.0;
  int orig_max_position = 8192;
};

// The text tower.
struct Llama3Config {
  int vocab_size = 0;
  int hidden_size = 0;
  int intermediate_size = 0;
  int num_hidden_layers = 0;
  int num_attention_heads = 0;
  int num_key_value_heads = 0;
  int head_dim = 0;  // even; need not be hidden_size / num_attention_heads
  int max_position_embeddings = 0;
  int max_seq_len = 0;  // tokens a sequence may have, at most max_position_embeddings
  double rms_norm_eps = 0;
  double rope_theta = 0;
  std::optional<Llama3RopeScalingParams> rope_scaling_params;  // nothing: no scaling
  bool attention_bias = false;                                 // biases on q, k, v and o
  bool mlp_bias = false;                                       // biases on gate, up and down
  DType dtype = DType::kBf16;
  std::vector<DeviceRef> devices;
  KVCacheParams kv_params;
  // Set by Idefics3Config::finalize, when the weights are open.
  bool tie_word_embeddings = false;
  NormMethod norm_method = NormMethod::kRmsNorm;
  DType norm_dtype = DType::kBf16;  // the format the norm weights are stored in
  ReturnLogits return_logits = ReturnLogits::kLastToken;
  ReturnHiddenStates return_hidden_states = ReturnHiddenStates::kNone;
};

// The vision tower and the connector.
struct Idefics3VisionConfig {
  DType dtype = DType::kBf16;
  int hidden_size = 0;
  int intermediate_size = 0;
  int image_size = 0;  // side of a tile, pixels
  int patch_size = 0;  // side of a patch, pixels; image_size / patch_size patches a side, rounded down
  int num_channels = 3;
  int num_attention_heads = 0;
  int head_dim = 0;
  double layer_norm_eps = 1e-6;
  std::string hidden_act = "gelu_pytorch_tanh";
  int num_hidden_layers = 0;
  double initializer_range = 0.02;
  int scale_factor = 2;  // pixel shuffle: scale_factor^2 patches become one image token
  int text_config_hidden_size = 0;

  // Fills all fields and checks that the tower can be built: heads divide hidden_size, the patch grid divides by
  // scale_factor, three channels, a known activation.
  static Idefics3VisionConfig initialize_from_config(const PipelineConfig& pipeline_config,
                                                     const HuggingFaceConfig& huggingface_config,
                                                     int text_config_hidden_size);
};

// What Idefics3Config::finalize needs to know of the weights: the stored format of each tensor by its canonical name
// ("model.text_model.norm.weight"), and whether lm_head.weight, if stored, has the bytes of the embedding.
struct StateDict {
  std::map<std::string, DType, std::less<>> dtypes;
  bool head_equals_embedding = false;
};

struct Idefics3Config {
  Architecture architecture = Architecture::kIdefics3;
  std::vector<DeviceRef> devices;
  int scale_factor = 2;
  int image_token_id = 128257;
  Idefics3VisionConfig vision_config;
  Llama3Config text_config;

  // Image tokens a tile takes: floor(image_size / patch_size)^2 / scale_factor^2.
  int image_seq_len() const;

  // From `model_config`, or from pipeline_config.model. Checks everything that can be known without the weights.
  // `max_seq_len`: nothing means calculate_max_seq_len.
  // Errors: kBadModel, as above; kInvalidValue for a bad choice of the user (lengths, page size, devices).
  static Idefics3Config initialize(const PipelineConfig& pipeline_config, const ModelConfig* model_config = nullptr,
                                   std::optional<int> max_seq_len = std::nullopt);
  // Second phase, with the weights open. The head is tied when there is no lm_head.weight, or when the top level of
  // config.json says so and the stored head has the bytes of the embedding; a stored head that differs is always used.
  void finalize(const HuggingFaceConfig& huggingface_config, const StateDict& llm_state_dict,
                ReturnLogits return_logits, NormMethod norm_method = NormMethod::kRmsNorm);

  const KVCacheParams& get_kv_params() const { return text_config.kv_params; }
  int get_max_seq_len() const { return text_config.max_seq_len; }
  // Layers of the text tower.
  static int get_num_layers(const HuggingFaceConfig& huggingface_config);
  // The user's max_length, which must be 1 or more and within the model's, or the model's max_position_embeddings.
  static int calculate_max_seq_len(const PipelineConfig& pipeline_config, const HuggingFaceConfig& huggingface_config);
};

}  // namespace idefics
