#include "measurement/work.h"

namespace idefics {

namespace {

// A product [rows, inputs] x [inputs, outputs].
int64_t product(int64_t rows, int64_t inputs, int64_t outputs) { return 2 * rows * inputs * outputs; }

// Scores and weighted sums of `pairs` pairs of a query and a key, over heads that are `width` wide together.
int64_t attention(int64_t pairs, int64_t width) { return 2 * product(1, pairs, width); }

}  // namespace

int64_t tile_flops(const Idefics3Config& config) {
  const Idefics3VisionConfig& v = config.vision_config;
  const int64_t N = v.image_size / v.patch_size, T = N * N, D = v.hidden_size, I = v.intermediate_size;
  const int64_t patch = int64_t{v.num_channels} * v.patch_size * v.patch_size;
  const int64_t layer = product(T, D, 3 * D) + attention(T * T, D) + product(T, D, D)  // q, k and v; out
                        + product(T, D, I) + product(T, I, D);
  const int64_t block = int64_t{config.scale_factor} * config.scale_factor;
  return product(T, patch, D) + v.num_hidden_layers * layer +
         product(config.image_seq_len(), D * block, config.text_config.hidden_size);
}

int64_t prompt_flops(const Idefics3Config& config, int64_t tokens) {
  const Llama3Config& t = config.text_config;
  const int64_t E = t.hidden_size, I = t.intermediate_size, D = t.head_dim, H = t.num_attention_heads,
                G = t.num_key_value_heads;
  const int64_t pairs = tokens * (tokens + 1) / 2;  // each token with itself and those before
  const int64_t layer = product(tokens, E, (H + 2 * G) * D) + attention(pairs, H * D) + product(tokens, H * D, E)  //
                        + product(tokens, E, 2 * I) + product(tokens, I, E);  // gate and up; down
  return t.num_hidden_layers * layer + product(1, E, t.vocab_size);
}

int64_t decode_bytes(const Network& network, const KvCache::Shape& kv, int64_t context) {
  const TextWeights& weights = network.text();
  size_t matrices = weights.head.bytes();
  for (const TextLayer& layer : weights.layers)
    matrices += layer.qkv.bytes() + layer.o.bytes() + layer.gate_up.bytes() + layer.down.bytes();
  return static_cast<int64_t>(matrices) + KvCache::page_bytes(kv) * context / kv.page_size;
}

}  // namespace idefics
