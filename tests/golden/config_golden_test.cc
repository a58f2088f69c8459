// config.json, generation_config.json and rotary values as transformers reads them.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <set>

#include "base/half.h"
#include "checkpoint/generation_config.h"
#include "checkpoint/rope.h"
#include "golden.h"
#include "idefics/config.h"

namespace idefics {
namespace {

json::object vision_as_read(const HuggingFaceVisionConfig& v) {
  return {{"hidden_size", v.hidden_size},
          {"intermediate_size", v.intermediate_size},
          {"num_hidden_layers", v.num_hidden_layers},
          {"num_attention_heads", v.num_attention_heads},
          {"num_channels", v.num_channels},
          {"image_size", v.image_size},
          {"patch_size", v.patch_size},
          {"hidden_act", v.hidden_act},
          {"layer_norm_eps", v.layer_norm_eps}};
}

json::object text_as_read(const HuggingFaceTextConfig& t) {
  return {{"vocab_size", t.vocab_size},
          {"hidden_size", t.hidden_size},
          {"intermediate_size", t.intermediate_size},
          {"num_hidden_layers", t.num_hidden_layers},
          {"num_attention_heads", t.num_attention_heads},
          {"num_key_value_heads", t.num_key_value_heads},
          {"head_dim", t.head_dim},
          {"hidden_act", t.hidden_act},
          {"max_position_embeddings", t.max_position_embeddings},
          {"rms_norm_eps", t.rms_norm_eps},
          {"attention_bias", t.attention_bias},
          {"mlp_bias", t.mlp_bias}};
}

// The reference keeps whatever keys the file has; compared are those that mean something for the type.
bool same_rope(const RopeParameters& rope, const json::object& read) {
  const auto number = [&](const char* key) { return read.contains(key) ? read.at(key).to_number<double>() : -1.0; };
  if (rope.rope_type != std::string_view(read.at("rope_type").get_string())) return false;
  if (rope.rope_theta != number("rope_theta")) return false;
  if (rope.partial_rotary_factor != (read.contains("partial_rotary_factor") ? number("partial_rotary_factor") : 1.0))
    return false;
  if (rope.rope_type != "llama3") return true;
  return rope.factor == number("factor") && rope.low_freq_factor == number("low_freq_factor") &&
         rope.high_freq_factor == number("high_freq_factor") &&
         rope.original_max_position_embeddings == number("original_max_position_embeddings");
}

bool same_as_read(const HuggingFaceConfig& config, const json::object& read) {
  const json::object top = {{"image_token_id", config.image_token_id},
                            {"scale_factor", config.scale_factor},
                            {"tie_word_embeddings", config.tie_word_embeddings},
                            {"vision", vision_as_read(config.vision_config)},
                            {"text", text_as_read(config.text_config)}};
  return std::all_of(top.begin(), top.end(), [&](const auto& pair) { return read.at(pair.key()) == pair.value(); }) &&
         same_rope(config.text_config.rope_parameters, read.at("rope").get_object());
}

std::string initialize_error(const HuggingFaceConfig& hf) {
  PipelineConfig pipeline;
  pipeline.model.huggingface_config = hf;
  try {
    Idefics3Config::initialize(pipeline);
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

// Rows that the reference reads, but that make no model which can be run: the key by which they are refused.
std::string refused_key(const std::string& what) {
  static const std::map<std::string, std::string> keys = {
      {"no image_token_id", "image_token_id"},  // 128257 by default, with 300 embeddings
      {"no vision_config", "scale_factor"},     // 7 patches a side by default, scale 2
      {"vision_config null", "scale_factor"},
      {"empty vision_config", "scale_factor"},
      {"vision hidden not divisible by heads", "num_attention_heads"},
      {"rope_scaling of type linear", "rope_type"},
      {"partial_rotary_factor", "partial_rotary_factor"},
  };
  const auto found = keys.find(what);
  return found == keys.end() ? "" : found->second;
}

std::string config_problem(const json::object& row) {
  HuggingFaceConfig config;
  try {
    config = HuggingFaceConfig::parse(json::serialize(row.at("config")), "config.json");
  } catch (const Error& e) {
    return row.contains("error") ? "" : e.what();
  }
  if (row.contains("error")) return "was accepted";
  if (!same_as_read(config, row.at("read").get_object())) return "other values were read";
  const std::string error = initialize_error(config);
  const std::string key = refused_key(std::string(row.at("what").get_string()));
  if (key.empty() ? !error.empty() : error.find(key) == std::string::npos) return "initialize: \"" + error + "\"";
  return "";
}

TEST(ConfigGolden, config_json) {
  golden::Family family("configs");
  for (const json::value& line : golden::read_lines("configs/configs.jsonl")) {
    const json::object& row = line.get_object();
    const std::string problem = config_problem(row);
    family.check(problem.empty(), std::string(row.at("what").get_string()) + ": " + problem);
  }
}

float to_float(const json::value& value) { return static_cast<float>(value.to_number<double>()); }

int64_t ulps(float a, float b) {
  int32_t x = 0, y = 0;
  std::memcpy(&x, &a, sizeof x);
  std::memcpy(&y, &b, sizeof y);
  return std::abs(int64_t{x} - y);
}

Llama3Config rope_config(const json::object& row) {
  const json::object& p = row.at("rope_parameters").get_object();
  Llama3Config config;
  config.head_dim = static_cast<int>(row.at("head_dim").get_int64());
  config.rope_theta = p.at("rope_theta").to_number<double>();
  if (p.at("rope_type") == "llama3") {
    config.rope_scaling_params = Llama3RopeScalingParams{
        p.at("factor").to_number<double>(), p.at("low_freq_factor").to_number<double>(),
        p.at("high_freq_factor").to_number<double>(), p.at("original_max_position_embeddings").to_number<int>()};
  }
  return config;
}

// The largest excess of |ours - theirs| over the tolerance at the recorded positions and components.
double table_excess(const json::object& row, const std::vector<float>& table, const std::string& key, size_t width) {
  const bool bf16 = key.ends_with("bf16");
  double worst = -1;
  const json::array& positions = row.at("positions").get_array();
  const json::array& components = row.at("components").get_array();
  for (size_t i = 0; i < positions.size(); ++i) {
    for (size_t c = 0; c < components.size(); ++c) {
      const auto position = static_cast<size_t>(positions[i].get_int64());
      float ours = table[i * width + static_cast<size_t>(components[c].get_int64())];
      if (bf16) ours = bf16_to_f32(f32_to_bf16(ours));
      const double tolerance = 1e-6 + 1.5e-7 * static_cast<double>(position) + (bf16 ? 4e-3 : 0);
      const double theirs = row.at(key).get_array()[i].get_array()[c].to_number<double>();
      worst = std::max(worst, std::abs(double{ours} - theirs) - tolerance);
    }
  }
  return worst;
}

std::string rope_problem(const json::object& row) {
  const std::vector<float> inv = rope_inv_freq(rope_config(row));
  const json::array& wanted = row.at("inv_freq").get_array();
  if (inv.size() != wanted.size()) return "another number of frequencies";
  for (size_t j = 0; j < inv.size(); ++j) {
    if (ulps(inv[j], to_float(wanted[j])) > 2) return "frequency " + std::to_string(j) + " is more than 2 ulp off";
  }
  std::vector<int32_t> positions;
  for (const json::value& position : row.at("positions").get_array())
    positions.push_back(static_cast<int32_t>(position.get_int64()));
  std::vector<float> cos(positions.size() * inv.size()), sin(cos.size());
  rope_rows(inv, positions, cos, sin);
  for (const char* format : {"f32", "bf16"}) {
    if (table_excess(row, cos, std::string("cos_") + format, inv.size()) > 0) return std::string("cos ") + format;
    if (table_excess(row, sin, std::string("sin_") + format, inv.size()) > 0) return std::string("sin ") + format;
  }
  return "";
}

TEST(ConfigGolden, rotary_frequencies_and_tables) {
  golden::Family family("rope");
  for (const json::value& line : golden::read_lines("configs/rope.jsonl")) {
    const std::string problem = rope_problem(line.get_object());
    family.check(problem.empty(), problem + " of " + json::serialize(line.at("rope_parameters")));
  }
}

json::value generation_as_read(const GenerationConfig& g, const json::value& eos) {
  const auto value = [](const auto& field) { return field ? json::value(*field) : json::value(nullptr); };
  json::value ids = nullptr;
  // "No id" is null or an empty list there, and an id alone is a number; here both are lists.
  if (g.eos_token_ids.size() == 1 && eos.is_int64()) ids = g.eos_token_ids[0];
  if (eos.is_array()) ids = json::array(g.eos_token_ids.begin(), g.eos_token_ids.end());
  return json::object{{"bos_token_id", value(g.bos_token_id)},
                      {"eos_token_id", ids},
                      {"pad_token_id", value(g.pad_token_id)},
                      {"do_sample", value(g.do_sample)},
                      {"temperature", value(g.temperature)},
                      {"top_k", value(g.top_k)},
                      {"top_p", value(g.top_p)},
                      {"repetition_penalty", value(g.repetition_penalty)},
                      {"max_length", value(g.max_length)}};
}

TEST(ConfigGolden, generation_config_json) {
  golden::Family family("generation_config");
  for (const json::value& line : golden::read_lines("configs/generation.jsonl")) {
    json::object wanted = line.get_object();
    const std::string text = json::serialize(wanted.at("generation_config"));
    wanted.erase("generation_config");
    const json::value read =
        generation_as_read(GenerationConfig::parse(text, "generation_config.json"), wanted.at("eos_token_id"));
    family.check(read == json::value(wanted),
                 text + ": wanted " + json::serialize(wanted) + ", read " + json::serialize(read));
  }
}

}  // namespace
}  // namespace idefics
