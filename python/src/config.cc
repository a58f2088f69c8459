#include "idefics/config.h"

#include <nanobind/stl/filesystem.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>

#include "binding.h"

namespace idefics::python {

namespace {

void bind_enums(nb::module_& m) {
  nb::enum_<DType>(m, "DType", "Number formats.")
      .value("float32", DType::kF32)
      .value("bfloat16", DType::kBf16)
      .value("float16", DType::kF16, "A format of files; the engine computes in the first two.")
      .value("q8", DType::kQ8, "8 bits and scales: of keys and values only.");
  nb::enum_<Architecture>(m, "Architecture", "They share the network and differ in their processors.")
      .value("IDEFICS3", Architecture::kIdefics3)
      .value("SMOLVLM", Architecture::kSmolVlm);
  nb::enum_<NormMethod>(m, "NormMethod", "How the text tower normalises.").value("RMS_NORM", NormMethod::kRmsNorm);
  nb::enum_<ReturnLogits>(m, "ReturnLogits", "Which positions of a step get logits.")
      .value("LAST_TOKEN", ReturnLogits::kLastToken, "The last of each sequence.")
      .value("VARIABLE", ReturnLogits::kVariable, "The last min(n, active tokens) of each.")
      .value("ALL", ReturnLogits::kAll, "All.");
  nb::enum_<ReturnHiddenStates>(m, "ReturnHiddenStates",
                                "Which hidden states a step gives out; B sequences, T tokens, E text width.")
      .value("NONE", ReturnHiddenStates::kNone)
      .value("LAST", ReturnHiddenStates::kLast, "[B, E] of the last token of each, before the final norm.")
      .value("ALL", ReturnHiddenStates::kAll, "[T, E] before the final norm.")
      .value("ALL_NORMALIZED", ReturnHiddenStates::kAllNormalized, "[T, E] behind the final norm.")
      .value("SELECTED_LAYERS", ReturnHiddenStates::kSelectedLayers,
             "[layers, T, E]: 0 is the embedded input with the image features in it, i the output of layer i.");
}

void bind_choices(nb::module_& m) {
  nb::class_<DeviceRef>(m, "DeviceRef", "A device; there is only cpu:0.")
      .def(
          "__init__",
          [](DeviceRef* self, std::string label, int id) {
            new (self) DeviceRef{std::move(label), id};
          },
          nb::arg("label") = "cpu", nb::arg("id") = 0)
      .def_rw("label", &DeviceRef::label)
      .def_rw("id", &DeviceRef::id)
      .def("__eq__", [](const DeviceRef& a, const DeviceRef& b) { return a == b; });

  nb::class_<HuggingFaceConfig>(m, "HuggingFaceConfig", "config.json as transformers reads it.")
      .def_static("parse", &HuggingFaceConfig::parse, nb::arg("config_json"), nb::arg("where") = "config.json")
      .def_static("load", &HuggingFaceConfig::load, nb::arg("folder"), "Reads folder/config.json.")
      .def_ro("architecture", &HuggingFaceConfig::architecture)
      .def_ro("image_token_id", &HuggingFaceConfig::image_token_id)
      .def_ro("scale_factor", &HuggingFaceConfig::scale_factor)
      .def_ro("tie_word_embeddings", &HuggingFaceConfig::tie_word_embeddings)
      .def_ro("eos_token_ids", &HuggingFaceConfig::eos_token_ids);

  nb::class_<KVCacheConfig>(m, "KVCacheConfig", "What the user chose for the cache of keys and values.")
      .def(
          "__init__",
          [](KVCacheConfig* self, int page_size, bool enable_prefix_caching, std::optional<DType> dtype) {
            new (self) KVCacheConfig{page_size, enable_prefix_caching, dtype};
          },
          nb::arg("page_size") = 128, nb::arg("enable_prefix_caching") = true, nb::arg("dtype") = nb::none())
      .def_rw("page_size", &KVCacheConfig::page_size, "Tokens, a multiple of 64.")
      .def_rw("enable_prefix_caching", &KVCacheConfig::enable_prefix_caching)
      .def_rw("dtype", &KVCacheConfig::dtype, "None: as the model's.");

  nb::class_<ModelConfig>(m, "ModelConfig", "What the user chose.")
      .def(
          "__init__",
          [](ModelConfig* self, std::filesystem::path model_path, std::optional<HuggingFaceConfig> huggingface_config,
             DType dtype, std::vector<DeviceRef> devices, std::optional<int> max_length,
             const KVCacheConfig& kv_cache) {
            new (self) ModelConfig{
                std::move(model_path), std::move(huggingface_config), dtype, std::move(devices), max_length, kv_cache};
          },
          nb::arg("model_path") = std::filesystem::path(), nb::arg("huggingface_config") = nb::none(),
          nb::arg("dtype") = DType::kBf16, nb::arg("devices") = std::vector<DeviceRef>{DeviceRef{}},
          nb::arg("max_length") = nb::none(), nb::arg("kv_cache") = KVCacheConfig(),
          nb::sig(
              "def __init__(self, model_path: str | os.PathLike = \"\", huggingface_config: HuggingFaceConfig | None "
              "= None, dtype: DType = ..., devices: collections.abc.Sequence[DeviceRef] = ..., max_length: "
              "int | None = None, kv_cache: KVCacheConfig = ...) -> None"))
      .def_rw("model_path", &ModelConfig::model_path)
      .def_rw("huggingface_config", &ModelConfig::huggingface_config)
      .def_rw("dtype", &ModelConfig::dtype, "Of weights and activations.")
      .def_rw("devices", &ModelConfig::devices)
      .def_rw("max_length", &ModelConfig::max_length, "Tokens of a sequence; None: what the model allows.")
      .def_rw("kv_cache", &ModelConfig::kv_cache);

  nb::class_<PipelineConfig>(m, "PipelineConfig", "What the user chose; `model` is a ModelConfig.")
      .def(
          "__init__", [](PipelineConfig* self, const ModelConfig& model) { new (self) PipelineConfig{model}; },
          nb::arg("model") = ModelConfig(), nb::sig("def __init__(self, model: ModelConfig = ...) -> None"))
      .def_rw("model", &PipelineConfig::model);

  nb::class_<StateDict>(m, "StateDict", "The stored format of each tensor, by its name in transformers.")
      .def(
          "__init__",
          [](StateDict* self, const std::map<std::string, DType>& dtypes, bool head_equals_embedding) {
            new (self) StateDict{{dtypes.begin(), dtypes.end()}, head_equals_embedding};
          },
          nb::arg("dtypes"), nb::arg("head_equals_embedding") = false)
      .def_rw("head_equals_embedding", &StateDict::head_equals_embedding,
              "Whether lm_head.weight has the bytes of the embedding.");
}

void bind_towers(nb::module_& m) {
  nb::class_<KVCacheParams>(m, "KVCacheParams", "What a cache of keys and values is made of.")
      .def(nb::init<>())
      .def_rw("dtype", &KVCacheParams::dtype)
      .def_rw("n_kv_heads", &KVCacheParams::n_kv_heads)
      .def_rw("head_dim", &KVCacheParams::head_dim)
      .def_rw("num_layers", &KVCacheParams::num_layers)
      .def_rw("page_size", &KVCacheParams::page_size, "Tokens.")
      .def_rw("enable_prefix_caching", &KVCacheParams::enable_prefix_caching)
      .def_rw("devices", &KVCacheParams::devices);

  nb::class_<Llama3RopeScalingParams>(m, "Llama3RopeScalingParams", "How rotary frequencies are stretched.")
      .def(nb::init<>())
      .def_rw("factor", &Llama3RopeScalingParams::factor)
      .def_rw("low_freq_factor", &Llama3RopeScalingParams::low_freq_factor)
      .def_rw("high_freq_factor", &Llama3RopeScalingParams::high_freq_factor)
      .def_rw("orig_max_position", &Llama3RopeScalingParams::orig_max_position);

  nb::class_<Llama3Config>(m, "Llama3Config", "The text tower.")
      .def(nb::init<>())
      .def_rw("vocab_size", &Llama3Config::vocab_size)
      .def_rw("hidden_size", &Llama3Config::hidden_size)
      .def_rw("intermediate_size", &Llama3Config::intermediate_size)
      .def_rw("num_hidden_layers", &Llama3Config::num_hidden_layers)
      .def_rw("num_attention_heads", &Llama3Config::num_attention_heads)
      .def_rw("num_key_value_heads", &Llama3Config::num_key_value_heads)
      .def_rw("head_dim", &Llama3Config::head_dim)
      .def_rw("max_position_embeddings", &Llama3Config::max_position_embeddings)
      .def_rw("max_seq_len", &Llama3Config::max_seq_len)
      .def_rw("rms_norm_eps", &Llama3Config::rms_norm_eps)
      .def_rw("rope_theta", &Llama3Config::rope_theta)
      .def_rw("rope_scaling_params", &Llama3Config::rope_scaling_params)
      .def_rw("attention_bias", &Llama3Config::attention_bias)
      .def_rw("mlp_bias", &Llama3Config::mlp_bias)
      .def_rw("dtype", &Llama3Config::dtype)
      .def_rw("devices", &Llama3Config::devices)
      .def_rw("kv_params", &Llama3Config::kv_params)
      .def_rw("tie_word_embeddings", &Llama3Config::tie_word_embeddings)
      .def_rw("norm_method", &Llama3Config::norm_method)
      .def_rw("norm_dtype", &Llama3Config::norm_dtype)
      .def_rw("return_logits", &Llama3Config::return_logits)
      .def_rw("return_hidden_states", &Llama3Config::return_hidden_states);

  nb::class_<Idefics3VisionConfig>(m, "Idefics3VisionConfig", "The vision tower and the connector.")
      .def(
          "__init__",
          [](Idefics3VisionConfig* self, DType dtype, int hidden_size, int intermediate_size, int image_size,
             int patch_size, int num_channels, int num_attention_heads, int head_dim, double layer_norm_eps,
             std::string hidden_act, int num_hidden_layers, double initializer_range, int scale_factor,
             int text_config_hidden_size) {
            new (self) Idefics3VisionConfig{dtype,
                                            hidden_size,
                                            intermediate_size,
                                            image_size,
                                            patch_size,
                                            num_channels,
                                            num_attention_heads,
                                            head_dim,
                                            layer_norm_eps,
                                            std::move(hidden_act),
                                            num_hidden_layers,
                                            initializer_range,
                                            scale_factor,
                                            text_config_hidden_size};
          },
          nb::arg("dtype"), nb::arg("hidden_size"), nb::arg("intermediate_size"), nb::arg("image_size"),
          nb::arg("patch_size"), nb::arg("num_channels"), nb::arg("num_attention_heads"), nb::arg("head_dim"),
          nb::arg("layer_norm_eps"), nb::arg("hidden_act"), nb::arg("num_hidden_layers"), nb::arg("initializer_range"),
          nb::arg("scale_factor"), nb::arg("text_config_hidden_size"))
      .def_rw("dtype", &Idefics3VisionConfig::dtype)
      .def_rw("hidden_size", &Idefics3VisionConfig::hidden_size)
      .def_rw("intermediate_size", &Idefics3VisionConfig::intermediate_size)
      .def_rw("image_size", &Idefics3VisionConfig::image_size, "Side of a tile, pixels.")
      .def_rw("patch_size", &Idefics3VisionConfig::patch_size, "Side of a patch, pixels.")
      .def_rw("num_channels", &Idefics3VisionConfig::num_channels)
      .def_rw("num_attention_heads", &Idefics3VisionConfig::num_attention_heads)
      .def_rw("head_dim", &Idefics3VisionConfig::head_dim)
      .def_rw("layer_norm_eps", &Idefics3VisionConfig::layer_norm_eps)
      .def_rw("hidden_act", &Idefics3VisionConfig::hidden_act)
      .def_rw("num_hidden_layers", &Idefics3VisionConfig::num_hidden_layers)
      .def_rw("initializer_range", &Idefics3VisionConfig::initializer_range)
      .def_rw("scale_factor", &Idefics3VisionConfig::scale_factor, "scale_factor**2 patches become one image token.")
      .def_rw("text_config_hidden_size", &Idefics3VisionConfig::text_config_hidden_size)
      .def_static("initialize_from_config", &Idefics3VisionConfig::initialize_from_config, nb::arg("pipeline_config"),
                  nb::arg("huggingface_config"), nb::arg("text_config_hidden_size"),
                  "Fills all fields and checks that the tower can be built. Raises Error (\"bad_model\").");
}

}  // namespace

void bind_config(nb::module_& m) {
  bind_enums(m);
  bind_choices(m);
  bind_towers(m);
  nb::class_<Idefics3Config>(m, "Idefics3Config", "What the network is built from.")
      .def(nb::init<>())
      .def_rw("architecture", &Idefics3Config::architecture)
      .def_rw("devices", &Idefics3Config::devices)
      .def_rw("scale_factor", &Idefics3Config::scale_factor)
      .def_rw("image_token_id", &Idefics3Config::image_token_id)
      .def_rw("vision_config", &Idefics3Config::vision_config)
      .def_rw("text_config", &Idefics3Config::text_config)
      .def_prop_ro("image_seq_len", &Idefics3Config::image_seq_len,
                   "Image tokens a tile takes: (image_size // patch_size)**2 // scale_factor**2.")
      .def_static("initialize", &Idefics3Config::initialize, nb::arg("pipeline_config"),
                  nb::arg("model_config") = nb::none(), nb::arg("max_seq_len") = nb::none(),
                  "From config.json and the user's choices. Raises Error: \"bad_model\", \"invalid_value\".")
      .def("finalize", &Idefics3Config::finalize, nb::arg("huggingface_config"), nb::arg("llm_state_dict"),
           nb::arg("return_logits"), nb::arg("norm_method") = NormMethod::kRmsNorm,
           "Second phase, with the weights open: whether the head is tied, the format of the norms.")
      .def("get_kv_params", &Idefics3Config::get_kv_params, nb::rv_policy::reference_internal)
      .def("get_max_seq_len", &Idefics3Config::get_max_seq_len, "Tokens a sequence may have.")
      .def_static("get_num_layers", &Idefics3Config::get_num_layers, nb::arg("huggingface_config"))
      .def_static("calculate_max_seq_len", &Idefics3Config::calculate_max_seq_len, nb::arg("pipeline_config"),
                  nb::arg("huggingface_config"));
}

}  // namespace idefics::python
