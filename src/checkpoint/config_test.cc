#include "idefics/config.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <new>
#include <set>

#include "base/json.h"
#include "checkpoint/test_files.h"

namespace {

// Bytes that are allocated now and the most there were, so that a test can see what a lying file costs.
size_t live_bytes = 0, peak_bytes = 0;
constexpr size_t kPrefix = 16;  // in front of each block: its size

}  // namespace

void* operator new(size_t size) {
  auto* block = static_cast<char*>(std::malloc(size + kPrefix));
  if (block == nullptr) throw std::bad_alloc();
  *reinterpret_cast<size_t*>(block) = size;
  live_bytes += size;
  peak_bytes = std::max(peak_bytes, live_bytes);
  return block + kPrefix;
}
void operator delete(void* pointer) noexcept {
  if (pointer == nullptr) return;
  char* block = static_cast<char*>(pointer) - kPrefix;
  live_bytes -= *reinterpret_cast<size_t*>(block);
  std::free(block);
}
void operator delete(void* pointer, size_t) noexcept { operator delete(pointer); }

namespace idefics {
namespace {

using test_files::error_of;

// Every key that means something, with values that fit together.
json::object good() {
  return parse_json(R"({
    "architectures": ["Idefics3ForConditionalGeneration"], "model_type": "idefics3", "image_token_id": 299, "scale_factor": 2,
    "tie_word_embeddings": false, "image_seq_len": 4, "bos_token_id": 1, "eos_token_id": [2, 3], "pad_token_id": 0, "dtype": "bfloat16",
    "qk_layer_norms": false, "use_resampler": false, "rope_interleaved": false,
    "vision_config": {"model_type": "idefics3_vision", "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2,
      "num_attention_heads": 3, "num_channels": 3, "image_size": 64, "patch_size": 16, "hidden_act": "gelu_pytorch_tanh",
      "layer_norm_eps": 1e-06, "initializer_range": 0.02},
    "text_config": {"model_type": "llama", "vocab_size": 300, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
      "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 20, "hidden_act": "silu", "rms_norm_eps": 1e-05,
      "max_position_embeddings": 512, "attention_bias": false, "mlp_bias": false, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": -1,
      "qk_layer_norms": false, "use_resampler": false, "rope_interleaved": false, "partial_rotary_factor": 1.0, "rope_theta": 10000.0,
      "rope_scaling": {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64, "partial_rotary_factor": 1.0}}})",
                    "good")
      .get_object();
}

Idefics3Config initialize(const json::object& config) {
  PipelineConfig pipeline;
  pipeline.model.huggingface_config = HuggingFaceConfig::parse(json::serialize(config), "config.json");
  return Idefics3Config::initialize(pipeline);
}

// The good config in which `pointer` has another value.
json::object good_with(const std::string& pointer, const json::value& value) {
  json::object config = good();
  json::object* object = &config;
  size_t at = 1;
  for (size_t slash = pointer.find('/', at); slash != std::string::npos; slash = pointer.find('/', at)) {
    object = &object->at(pointer.substr(at, slash - at)).get_object();
    at = slash + 1;
  }
  (*object)[pointer.substr(at)] = value;
  return config;
}

// The error of a good config in which `pointer` ("/text_config/head_dim") has another value.
std::string error_with(const std::string& pointer, const json::value& value) {
  return error_of([&] { initialize(good_with(pointer, value)); });
}

TEST(Config, the_good_one_is_accepted) {
  const Idefics3Config config = initialize(good());
  EXPECT_EQ(config.architecture, Architecture::kIdefics3);
  EXPECT_EQ(config.image_token_id, 299);
  EXPECT_EQ(config.image_seq_len(), 4);
  EXPECT_EQ(config.get_max_seq_len(), 512);
  EXPECT_EQ(config.vision_config.head_dim, 16);
  EXPECT_EQ(config.vision_config.text_config_hidden_size, 64);
  EXPECT_EQ(config.vision_config.scale_factor, 2);
  EXPECT_EQ(config.text_config.head_dim, 20);
  EXPECT_EQ(config.text_config.rope_theta, 500000.0);
  EXPECT_EQ(config.text_config.rope_scaling_params->orig_max_position, 64);
  EXPECT_EQ(config.get_kv_params().n_kv_heads, 2);
  EXPECT_EQ(config.get_kv_params().head_dim, 20);
  EXPECT_EQ(config.get_kv_params().num_layers, 2);
  EXPECT_EQ(config.get_kv_params().page_size, 128);
}

// The pointers to all values of an object, objects themselves included.
void collect(const json::object& object, const std::string& prefix, std::vector<std::string>& out) {
  for (const auto& [key, value] : object) {
    const std::string pointer = fmt::format("{}/{}", prefix, std::string_view(key));
    out.push_back(pointer);
    if (value.is_object()) collect(value.get_object(), pointer, out);
  }
}

TEST(Config, no_bad_value_of_any_key_crashes_or_costs_memory) {
  const std::vector<json::value> bad = {nullptr, -1,  0,  1.5,           1000000000,        uint64_t{1} << 63, 1e308,
                                        true,    "1", "", json::array{}, json::array{1, 2}, json::object{}};
  std::vector<std::string> pointers;
  collect(good(), "", pointers);
  EXPECT_GE(pointers.size(), 50u);
  for (const std::string& pointer : pointers) {
    for (const json::value& value : bad) {
      const std::string text = json::serialize(good_with(pointer, value));
      const size_t before = live_bytes;
      peak_bytes = live_bytes;
      std::string error;
      try {
        PipelineConfig pipeline;
        pipeline.model.huggingface_config = HuggingFaceConfig::parse(text, "config.json");
        Idefics3Config::initialize(pipeline);
      } catch (const Error& e) {
        error = e.what();
        EXPECT_EQ(e.code(), ErrorCode::kBadModel);
      }
      // A JSON tree of so small a file takes several times its size; what counts is that no number in it is believed.
      EXPECT_LT(peak_bytes - before, 8 * text.size()) << pointer << " = " << describe(value);
      const std::string key = pointer.substr(pointer.rfind('/') + 1);
      EXPECT_TRUE(error.empty() || error.find("config.json") != std::string::npos) << error;
      const bool is_object =
          key == "vision_config" || key == "text_config" || key == "rope_scaling";  // then a key in it
      EXPECT_TRUE(error.empty() || is_object || error.find(key) != std::string::npos)
          << pointer << " = " << describe(value) << ": " << error;
    }
  }
}

TEST(Config, sizes_must_be_sensible_whole_numbers) {
  const std::vector<json::value> bad = {-1,    0,    1.5, 48.0,           1000000000,    uint64_t{1} << 63,
                                        1e308, true, "1", json::array{1}, json::object{}};
  const std::string vision = "/vision_config/", text = "/text_config/";
  for (const std::string& pointer :
       {std::string("/scale_factor"), vision + "hidden_size", vision + "intermediate_size",
        vision + "num_hidden_layers", vision + "num_attention_heads", vision + "num_channels", vision + "image_size",
        vision + "patch_size", text + "vocab_size", text + "hidden_size", text + "intermediate_size",
        text + "num_hidden_layers", text + "num_attention_heads", text + "num_key_value_heads", text + "head_dim",
        text + "max_position_embeddings", text + "rope_scaling/original_max_position_embeddings"}) {
    const std::string key = pointer.substr(pointer.rfind('/') + 1);
    for (const json::value& value : bad) {
      EXPECT_NE(error_with(pointer, value).find(key), std::string::npos) << pointer << " = " << describe(value);
    }
    const bool nullable = key == "num_key_value_heads" || key == "head_dim";
    EXPECT_EQ(error_with(pointer, nullptr).empty(), nullable) << pointer;
  }
}

TEST(Config, what_the_network_cannot_do_is_refused_by_name) {
  const std::pair<const char*, json::value> cases[] = {
      {"/vision_config/num_attention_heads", 5},
      {"/vision_config/num_channels", 1},
      {"/vision_config/num_channels", 4},
      {"/vision_config/hidden_act", "relu"},
      {"/vision_config/patch_size", 65},
      {"/vision_config/layer_norm_eps", 0},
      {"/vision_config/layer_norm_eps", "x"},
      {"/text_config/num_attention_heads", 5},
      {"/text_config/num_key_value_heads", 3},
      {"/text_config/head_dim", 17},
      {"/text_config/hidden_act", "gelu"},
      {"/text_config/model_type", "mistral"},
      {"/text_config/rms_norm_eps", -1e-5},
      {"/text_config/qk_layer_norms", true},
      {"/text_config/use_resampler", true},
      {"/text_config/rope_interleaved", true},
      {"/text_config/partial_rotary_factor", 0.5},
      {"/text_config/attention_bias", 1},
      {"/text_config/rope_scaling/rope_type", "yarn"},
      {"/text_config/rope_scaling/rope_theta", 0},
      {"/text_config/rope_scaling/factor", nullptr},
      {"/text_config/rope_scaling/high_freq_factor", 1.0},
      {"/text_config/rope_scaling/low_freq_factor", 4.0},
      {"/text_config/rope_scaling/partial_rotary_factor", 0.25},
      {"/text_config/quantization_config", json::object{{"bits", 4}}},
      {"/quantization_config", json::object{{"quant_method", "gptq"}}},
      {"/quantization", json::object{{"bits", 8}}},
      {"/qk_layer_norms", true},
      {"/image_seq_len", 5},
      {"/image_token_id", 300},
      {"/image_token_id", -1},
      {"/scale_factor", 3},
      {"/architectures", json::array{"LlamaForCausalLM"}},
      {"/architectures", json::array{"SmolVLMForConditionalGeneration"}},
      {"/model_type", "idefics2"},
      {"/model_type", "smolvlm"},
      {"/eos_token_id", json::array{1, "x"}},
      {"/eos_token_id", 1.5},
  };
  for (const auto& [pointer, value] : cases) {
    const std::string key = std::string(pointer).substr(std::string(pointer).rfind('/') + 1);
    const std::string error = error_with(pointer, value);
    const bool names_it = error.find(key) != std::string::npos ||
                          (key == "low_freq_factor" && error.find(key.substr(4)) != std::string::npos);
    EXPECT_TRUE(names_it) << pointer << " = " << describe(value) << ": " << error;
  }
}

TEST(Config, errors_say_what_was_wanted_and_found) {
  EXPECT_EQ(error_with("/text_config/num_hidden_layers", -3),
            "config.json: text_config: num_hidden_layers is -3, wanted a whole number from 1 to 1000");
  EXPECT_EQ(
      error_with("/scale_factor", 3),
      "config.json: scale_factor is 3, which does not divide the 4 patches a side (image_size 64 / patch_size 16)");
  EXPECT_EQ(error_with("/vision_config/num_channels", 1), "config.json: vision_config: num_channels is 1, wanted 3");
  EXPECT_NE(
      error_of([] { HuggingFaceConfig::parse("[1]", "x/config.json"); }).find("x/config.json: wanted a JSON object"),
      std::string::npos);
  EXPECT_NE(
      error_of([] { HuggingFaceConfig::parse("{}", "config.json"); }).find("architectures and model_type are missing"),
      std::string::npos);
}

TEST(Config, either_name_of_the_architecture_is_enough) {
  EXPECT_EQ(HuggingFaceConfig::parse(R"({"model_type": "smolvlm"})", "c").architecture, Architecture::kSmolVlm);
  EXPECT_EQ(HuggingFaceConfig::parse(R"({"architectures": ["Idefics3ForConditionalGeneration"]})", "c").architecture,
            Architecture::kIdefics3);
}

TEST(Config, stop_ids_are_read_from_both_levels) {
  const HuggingFaceConfig config = HuggingFaceConfig::parse(json::serialize(good()), "c");
  EXPECT_EQ(config.eos_token_ids, (std::vector<int32_t>{2, 3}));
  EXPECT_EQ(config.text_config.eos_token_ids, std::vector<int32_t>{2});
  EXPECT_EQ(config.text_config.pad_token_id, std::nullopt);  // -1
}

TEST(Config, the_length_is_what_the_user_wants_within_what_the_model_allows) {
  PipelineConfig pipeline;
  pipeline.model.huggingface_config = HuggingFaceConfig::parse(json::serialize(good()), "config.json");
  const HuggingFaceConfig& hf = *pipeline.model.huggingface_config;
  EXPECT_EQ(Idefics3Config::calculate_max_seq_len(pipeline, hf), 512);
  pipeline.model.max_length = 100;
  EXPECT_EQ(Idefics3Config::calculate_max_seq_len(pipeline, hf), 100);
  EXPECT_EQ(Idefics3Config::initialize(pipeline).get_max_seq_len(), 100);
  EXPECT_EQ(Idefics3Config::initialize(pipeline, nullptr, 33).get_max_seq_len(), 33);
  for (const int length : {0, -5, 513}) {
    pipeline.model.max_length = length;
    EXPECT_NE(error_of([&] { Idefics3Config::calculate_max_seq_len(pipeline, hf); }), "") << length;
  }
  EXPECT_EQ(Idefics3Config::get_num_layers(hf), 2);
}

TEST(Config, choices_of_the_user_are_checked) {
  PipelineConfig pipeline;
  EXPECT_NE(error_of([&] { Idefics3Config::initialize(pipeline); }).find("huggingface_config is missing"),
            std::string::npos);
  pipeline.model.huggingface_config = HuggingFaceConfig::parse(json::serialize(good()), "config.json");
  ModelConfig model = pipeline.model;
  model.devices = {};
  EXPECT_NE(error_of([&] { Idefics3Config::initialize(pipeline, &model); }), "");
  model = pipeline.model;
  model.kv_cache.page_size = 0;
  EXPECT_NE(error_of([&] { Idefics3Config::initialize(pipeline, &model); }), "");
  model = pipeline.model;
  model.dtype = DType::kF32;
  EXPECT_EQ(Idefics3Config::initialize(pipeline, &model).get_kv_params().dtype, DType::kF32);
}

TEST(Config, image_seq_len_is_computed_as_on_the_page) {
  Idefics3Config config;
  for (const auto& [image, patch, scale, tokens] :
       {std::array{364, 14, 2, 169}, std::array{384, 14, 3, 81}, std::array{512, 16, 4, 64}, std::array{144, 12, 3, 16},
        std::array{100, 16, 4, 2}}) {
    config.vision_config.image_size = image;
    config.vision_config.patch_size = patch;
    config.scale_factor = scale;
    EXPECT_EQ(config.image_seq_len(), tokens);
  }
  config.scale_factor = 0;
  EXPECT_NE(error_of([&] { config.image_seq_len(); }), "");
}

TEST(Config, finalize_ties_the_head_only_when_nothing_is_lost) {
  json::object json = good();
  StateDict state;
  state.dtypes["model.text_model.layers.0.input_layernorm.weight"] = DType::kF16;
  for (const bool flag : {false, true}) {
    json["tie_word_embeddings"] = flag;
    json.at("text_config").get_object()["tie_word_embeddings"] = !flag;  // means nothing
    const HuggingFaceConfig hf = HuggingFaceConfig::parse(json::serialize(json), "config.json");
    Idefics3Config config = initialize(json);
    state.dtypes.erase("lm_head.weight");
    config.finalize(hf, state, ReturnLogits::kAll);
    EXPECT_TRUE(config.text_config.tie_word_embeddings);
    EXPECT_EQ(config.text_config.norm_dtype, DType::kF16);
    EXPECT_EQ(config.text_config.return_logits, ReturnLogits::kAll);
    state.dtypes["lm_head.weight"] = DType::kF16;
    for (const bool equal : {false, true}) {
      state.head_equals_embedding = equal;
      config.finalize(hf, state, ReturnLogits::kLastToken);
      EXPECT_EQ(config.text_config.tie_word_embeddings, flag && equal);
    }
  }
  Idefics3Config config = initialize(json);
  EXPECT_NE(error_of([&] { config.finalize(HuggingFaceConfig{}, StateDict{}, ReturnLogits::kAll); }), "");
}

TEST(Config, a_folder_without_config_json_is_named) {
  const test_files::TempFolder folder;
  EXPECT_NE(error_of([&] { HuggingFaceConfig::load(folder.path()); }).find("config.json"), std::string::npos);
  test_files::write(folder.path() / "config.json", json::serialize(good()));
  EXPECT_EQ(HuggingFaceConfig::load(folder.path()).image_token_id, 299);
  test_files::write(folder.path() / "config.json", std::string(2 << 20, ' '));
  EXPECT_NE(error_of([&] { HuggingFaceConfig::load(folder.path()); }).find("limit"), std::string::npos);
}

}  // namespace
}  // namespace idefics
