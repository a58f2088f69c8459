#include "model/network.h"

#include <fmt/format.h>

#include <algorithm>

#include "checkpoint/rope.h"
#include "model/connector.h"

namespace idefics {

namespace {

VisionLayer load_vision_layer(WeightLoader& load, const Idefics3VisionConfig& c, int i) {
  const std::string at = fmt::format("model.vision_model.encoder.layers.{}.", i);
  const int64_t D = c.hidden_size, I = c.intermediate_size;
  return {
      .norm1_w = load.vector(at + "layer_norm1.weight", {D}),
      .norm1_b = load.vector(at + "layer_norm1.bias", {D}),
      .norm2_w = load.vector(at + "layer_norm2.weight", {D}),
      .norm2_b = load.vector(at + "layer_norm2.bias", {D}),
      .qkv = load.joined({{at + "self_attn.q_proj", D}, {at + "self_attn.k_proj", D}, {at + "self_attn.v_proj", D}}, D,
                         true),
      .out = load.linear(at + "self_attn.out_proj", D, D, true),
      .fc1 = load.linear(at + "mlp.fc1", I, D, true),
      .fc2 = load.linear(at + "mlp.fc2", D, I, true),
  };
}

VisionWeights load_vision(WeightLoader& load, const Idefics3VisionConfig& c) {
  const std::string at = "model.vision_model.";
  const int64_t N = c.image_size / c.patch_size, D = c.hidden_size;
  VisionWeights w;
  w.format = load.format();
  w.patch = load.convolution(at + "embeddings.patch_embedding", D, c.patch_size);
  w.position = load.vector(at + "embeddings.position_embedding.weight", {N * N, D});
  for (int i = 0; i < c.num_hidden_layers; ++i) w.layers.push_back(load_vision_layer(load, c, i));
  w.post_norm_w = load.vector(at + "post_layernorm.weight", {D});
  w.post_norm_b = load.vector(at + "post_layernorm.bias", {D});
  return w;
}

TextLayer load_text_layer(WeightLoader& load, const Llama3Config& c, int i) {
  const std::string at = fmt::format("model.text_model.layers.{}.", i), attn = at + "self_attn.", mlp = at + "mlp.";
  const int64_t E = c.hidden_size, I = c.intermediate_size, q = int64_t{c.num_attention_heads} * c.head_dim,
                kv = int64_t{c.num_key_value_heads} * c.head_dim;
  return {
      .attn_norm = load.vector(at + "input_layernorm.weight", {E}),
      .mlp_norm = load.vector(at + "post_attention_layernorm.weight", {E}),
      .qkv = load.joined({{attn + "q_proj", q}, {attn + "k_proj", kv}, {attn + "v_proj", kv}}, E, c.attention_bias),
      .o = load.linear(attn + "o_proj", E, q, c.attention_bias),
      .gate_up = load.joined({{mlp + "gate_proj", I}, {mlp + "up_proj", I}}, E, c.mlp_bias),
      .down = load.linear(mlp + "down_proj", E, I, c.mlp_bias),
  };
}

TextWeights load_text(WeightLoader& load, const Llama3Config& c) {
  const std::string embedding = "model.text_model.embed_tokens.weight";
  TextWeights w;
  w.format = load.format();
  for (int i = 0; i < c.num_hidden_layers; ++i) w.layers.push_back(load_text_layer(load, c, i));
  w.norm = load.vector("model.text_model.norm.weight", {c.hidden_size});
  w.head = load.matrix(c.tie_word_embeddings ? embedding : "lm_head.weight", c.vocab_size, c.hidden_size,
                       head_format(load.format()));
  if (!c.tie_word_embeddings) w.embedding = load.matrix(embedding, c.vocab_size, c.hidden_size, load.format().input());
  w.inv_freq = rope_inv_freq(c);
  return w;
}

}  // namespace

Network::Network(ThreadPool& pool, const Checkpoint& checkpoint, const Idefics3Config& config, Format format)
    : config_(config), format_(format) {
  Arena measure;
  WeightLoader plan(checkpoint, measure, format);
  load(plan);
  memory_ = Arena(measure.peak(), "the weights");
  WeightLoader loader(checkpoint, memory_, format);
  load(loader);
  loader.pack(pool);
  nonfinite_.assign(loader.nonfinite().begin(), loader.nonfinite().end());
}

void Network::load(WeightLoader& loader) {
  const Idefics3VisionConfig& v = config_.vision_config;
  loader.use(picture_format(format_));
  vision_ = load_vision(loader, v);
  connector_ = loader.matrix("model.connector.modality_projection.proj.weight", config_.text_config.hidden_size,
                             int64_t{v.hidden_size} * config_.scale_factor * config_.scale_factor);
  loader.use(format_);
  text_ = load_text(loader, config_.text_config);
}

KvCache::Shape Network::kv_shape(const Idefics3Config& config, KvType dtype) {
  const KVCacheParams& p = config.get_kv_params();
  return {.dtype = dtype,
          .num_layers = p.num_layers,
          .kv_heads = p.n_kv_heads,
          .head_dim = p.head_dim,
          .page_size = p.page_size};
}

void Network::encode(const Exec& exec, const TilePixels& pixels, Matrix<float> features, const Probe& probe) const {
  encode(exec, pixels, {patches_per_side(), patches_per_side()}, features, probe);
}

void Network::encode(const Exec& exec, const TilePixels& pixels, ValidPatches valid, Matrix<float> features,
                     const Probe& probe) const {
  ArenaScope scope(exec.arena);
  const int64_t T = int64_t{patches_per_side()} * patches_per_side();
  const Matrix<float> patches = exec.arena.take_matrix(T, config_.vision_config.hidden_size);
  encode_tile(exec, config_.vision_config, vision_, pixels, valid, patches, probe);
  connect(exec, config_.scale_factor, connector_, patches, features);
  if (probe) probe("connector", features);
}

void Network::embed(std::span<const int32_t> ids, Matrix<float> x) const {
  IDEFICS_CHECK(std::ssize(ids) == x.rows() && x.cols() == config_.text_config.hidden_size);
  for (int64_t i = 0; i < x.rows(); ++i) {
    const int32_t id = ids[static_cast<size_t>(i)];
    IDEFICS_CHECK(id >= 0 && id < config_.text_config.vocab_size);
    (config_.text_config.tie_word_embeddings ? text_.head : text_.embedding).read_row(id, x.row(i));
  }
}

void Network::run(const Exec& exec, std::span<const SequenceRows> sequences, KvCache& cache, Matrix<float> x,
                  const Probe& probe) const {
  run_text_layers(exec, config_.text_config, text_, sequences, cache, x, probe);
}

void Network::logits(const Exec& exec, Matrix<const float> x, std::span<const int32_t> rows, Matrix<float> logits,
                     const Probe& probe) const {
  run_head(exec, config_.text_config, text_, x, rows, logits, probe);
}

void Network::normalize(const Exec& exec, Matrix<const float> x, Matrix<float> y) const {
  ops::rms_norm(exec, x, text_.norm, static_cast<float>(config_.text_config.rms_norm_eps),
                Activation(y.data(), Element::kF32, y.rows(), y.cols(), y.stride()));
}

size_t Network::scratch_bytes(const Idefics3Config& config, Format format, int64_t max_rows, int64_t max_pages,
                              int64_t max_logit_rows) {
  const Idefics3VisionConfig& v = config.vision_config;
  const int64_t side = v.image_size / v.patch_size, T = side * side;
  Arena tile;
  tile.take_matrix(T, v.hidden_size);
  plan_encode_tile(tile, v, picture_format(format));
  plan_connect(tile, config.scale_factor, picture_format(format), T, v.hidden_size);
  Arena text;
  plan_text_layers(text, config.text_config, format, kv_shape(config, format.input()), max_rows, max_pages);
  Arena head;
  plan_head(head, config.text_config, format, max_logit_rows);
  return std::max({tile.peak(), text.peak(), head.peak()});
}

}  // namespace idefics
