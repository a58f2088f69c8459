#include "model/network.h"

#include <fmt/format.h>

#include <algorithm>

#include "checkpoint/rope.h"
#include "model/connector.h"

namespace idefics {

namespace {

// Reads tensors by name and packs them.
class Loader {
 public:
  Loader(ThreadPool& pool, const Checkpoint& checkpoint, Element dtype)
      : pool_(pool), checkpoint_(checkpoint), dtype_(dtype) {}

  std::vector<float> vector(const std::string& name, std::initializer_list<int64_t> shape) const {
    const TensorInfo& tensor = checkpoint_.get(name, shape);
    std::vector<float> out(static_cast<size_t>(tensor.num_elements()));
    read_as_f32(tensor, out);
    return out;
  }

  PackedMatrix matrix(const std::string& name, int64_t n, int64_t k) const {
    const TensorInfo& tensor = checkpoint_.get(name, {n, k});
    return PackedMatrix(pool_, dtype_, n, k, [&](int64_t row, float* out) {
      read_as_f32(tensor, {out, static_cast<size_t>(k)}, row * k);
    });
  }

  // A layer "prefix.weight" [n, k] and, if `bias`, "prefix.bias" [n].
  PackedMatrix linear(const std::string& prefix, int64_t n, int64_t k, bool bias) const {
    return joined({{prefix, n}}, k, bias);
  }

  // Several layers over the same input as one: their outputs one behind the other.
  struct Part {
    std::string prefix;
    int64_t n;
  };
  PackedMatrix joined(const std::vector<Part>& parts, int64_t k, bool bias) const {
    std::vector<const TensorInfo*> tensors;
    std::vector<int64_t> ends;
    std::vector<float> biases;
    int64_t n = 0;
    for (const Part& part : parts) {
      tensors.push_back(&checkpoint_.get(part.prefix + ".weight", {part.n, k}));
      ends.push_back(n += part.n);
      if (!bias) continue;
      const std::vector<float> b = vector(part.prefix + ".bias", {part.n});
      biases.insert(biases.end(), b.begin(), b.end());
    }
    const auto source = [&](int64_t row, float* out) {
      size_t i = 0;
      while (row >= ends[i]) ++i;
      const int64_t first = i == 0 ? 0 : ends[i - 1];
      read_as_f32(*tensors[i], {out, static_cast<size_t>(k)}, (row - first) * k);
    };
    return PackedMatrix(pool_, dtype_, n, k, source, std::move(biases));
  }

  // The convolution of the patches as a matrix [D, 3 p p].
  PackedMatrix patch_embedding(const Idefics3VisionConfig& c) const {
    const std::string name = "model.vision_model.embeddings.patch_embedding";
    const int64_t D = c.hidden_size, p = c.patch_size, k = 3 * p * p;
    const TensorInfo& tensor = checkpoint_.get(name + ".weight", {D, 3, p, p});
    return PackedMatrix(
        pool_, dtype_, D, k,
        [&](int64_t row, float* out) {
          read_as_f32(tensor, {out, static_cast<size_t>(k)}, row * k);
        },
        vector(name + ".bias", {D}));
  }

  Embedding embedding(const std::string& name, int64_t rows, int64_t cols) const {
    const TensorInfo& tensor = checkpoint_.get(name, {rows, cols});
    return Embedding(dtype_, rows, cols, [&](int64_t row, float* out) {
      read_as_f32(tensor, {out, static_cast<size_t>(cols)}, row * cols);
    });
  }

 private:
  ThreadPool& pool_;
  const Checkpoint& checkpoint_;
  Element dtype_;
};

VisionLayer load_vision_layer(const Loader& load, const Idefics3VisionConfig& c, int i) {
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

VisionWeights load_vision(const Loader& load, const Idefics3VisionConfig& c) {
  const std::string at = "model.vision_model.";
  const int64_t N = c.image_size / c.patch_size, D = c.hidden_size;
  VisionWeights w;
  w.patch = load.patch_embedding(c);
  w.position = load.vector(at + "embeddings.position_embedding.weight", {N * N, D});
  for (int i = 0; i < c.num_hidden_layers; ++i) w.layers.push_back(load_vision_layer(load, c, i));
  w.post_norm_w = load.vector(at + "post_layernorm.weight", {D});
  w.post_norm_b = load.vector(at + "post_layernorm.bias", {D});
  return w;
}

TextLayer load_text_layer(const Loader& load, const Llama3Config& c, int i) {
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

TextWeights load_text(const Loader& load, const Llama3Config& c) {
  const std::string embedding = "model.text_model.embed_tokens.weight";
  TextWeights w;
  for (int i = 0; i < c.num_hidden_layers; ++i) w.layers.push_back(load_text_layer(load, c, i));
  w.norm = load.vector("model.text_model.norm.weight", {c.hidden_size});
  w.head = load.matrix(c.tie_word_embeddings ? embedding : "lm_head.weight", c.vocab_size, c.hidden_size);
  if (!c.tie_word_embeddings) w.embedding = load.embedding(embedding, c.vocab_size, c.hidden_size);
  const std::vector<float> inv_freq = rope_inv_freq(c);
  const size_t count = static_cast<size_t>(c.max_seq_len) * inv_freq.size();
  w.cos.resize(count);
  w.sin.resize(count);
  rope_tables(inv_freq, c.max_seq_len, w.cos, w.sin);
  return w;
}

size_t matrix_bytes(const VisionLayer& l) { return l.qkv.bytes() + l.out.bytes() + l.fc1.bytes() + l.fc2.bytes(); }
size_t matrix_bytes(const TextLayer& l) { return l.qkv.bytes() + l.o.bytes() + l.gate_up.bytes() + l.down.bytes(); }

}  // namespace

Network::Network(ThreadPool& pool, const Checkpoint& checkpoint, const Idefics3Config& config, Element dtype)
    : config_(config), dtype_(dtype) {
  const Loader load(pool, checkpoint, dtype);
  const Idefics3VisionConfig& v = config.vision_config;
  vision_ = load_vision(load, v);
  connector_ = load.matrix("model.connector.modality_projection.proj.weight", config.text_config.hidden_size,
                           int64_t{v.hidden_size} * config.scale_factor * config.scale_factor);
  text_ = load_text(load, config.text_config);
}

size_t Network::weight_bytes() const {
  size_t bytes = vision_.patch.bytes() + vision_.position.size() * sizeof(float) + connector_.bytes() +
                 text_.embedding.bytes() + text_.head.bytes() + (text_.cos.size() + text_.sin.size()) * sizeof(float);
  for (const VisionLayer& layer : vision_.layers) bytes += matrix_bytes(layer);
  for (const TextLayer& layer : text_.layers) bytes += matrix_bytes(layer);
  return bytes;
}

KvCache::Shape Network::kv_shape() const {
  const KVCacheParams& p = config_.get_kv_params();
  return {.dtype = dtype_,
          .num_layers = p.num_layers,
          .kv_heads = p.n_kv_heads,
          .head_dim = p.head_dim,
          .page_size = p.page_size};
}

void Network::encode(const Exec& exec, std::span<const float> pixels, Matrix<float> features,
                     const Probe& probe) const {
  encode(exec, pixels, {patches_per_side(), patches_per_side()}, features, probe);
}

void Network::encode(const Exec& exec, std::span<const float> pixels, ValidPatches valid, Matrix<float> features,
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
    text_.embedding.read_row(text_.head, id, x.row(i));
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

size_t Network::scratch_bytes(int64_t max_rows, int64_t max_pages, int64_t max_logit_rows) const {
  Arena tile;
  const int64_t T = int64_t{patches_per_side()} * patches_per_side();
  tile.take_matrix(T, config_.vision_config.hidden_size);
  plan_encode_tile(tile, config_.vision_config, dtype_);
  plan_connect(tile, config_.scale_factor, connector_, T);
  Arena text;
  plan_text_layers(text, config_.text_config, kv_shape(), max_rows, max_pages);
  Arena head;
  plan_head(head, config_.text_config, dtype_, max_logit_rows);
  return std::max({tile.peak(), text.peak(), head.peak()});
}

}  // namespace idefics
