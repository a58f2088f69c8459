// A checkpoint that answers.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "idefics/config.h"
#include "idefics/processor.h"
#include "idefics/sampling.h"

namespace idefics {

enum class ComputeType {
  kAuto,  // bf16 when the checkpoint stores bf16, else f32: never fewer bits than the file has
  kF32,
  kBf16,  // weights, matrix inputs and the KV cache in bfloat16; every sum in float32
  // As kBf16, but with the weights of all layers, of the connector and of the head in
  kInt8,  // 8 bits, a scale for each output; inputs of products are rounded to 8 bits too, 64 of a token sharing a
          // scale
  kQ8,    // 8 bits, 32 weights sharing a scale
  kQ4,    // 4 bits, 32 weights sharing a scale and an offset
};

struct EngineOptions {
  ComputeType dtype = ComputeType::kAuto;
  int num_threads = 0;  // 0: the CPUs this process may use
  std::optional<int> max_model_len =
      std::nullopt;              // most tokens of prompt and answer; default: the checkpoint's max_position_embeddings
  int prefill_chunk = 512;       // rows per step of a prompt; bounds scratch memory, never changes results
  bool allow_nonfinite = false;  // load weights with NaN or Inf; Engine::nonfinite names them
};

enum class FinishReason { kStop, kLength, kCancelled };
std::string_view finish_reason_name(FinishReason reason);  // "stop", "length", "cancelled"

struct Timings {
  double preprocess_ms = 0;  // template, decoding, cutting, tokenising
  double vision_ms = 0;      // encoder and connector, all tiles
  double prefill_ms = 0;     // text tower over the prompt, first token's logits included
  double ttft_ms = 0;        // from the call to the first token
  double decode_ms = 0;      // from the first token to the last
  double decode_tokens_per_s = 0;
};

struct Request {
  std::vector<Message> messages;
  PromptOptions prompt;
  SamplingParams sampling;
  // Leave special tokens out of the text. Not set: yes, but for models that write their structure as special tokens
  // (DocTags). The token that ended the answer is never part of the text.
  std::optional<bool> skip_special_tokens = std::nullopt;
};

struct Answer {
  std::string text;
  std::vector<int32_t> token_ids;  // the stop token included, if one was chosen
  std::vector<int32_t> prompt_token_ids;
  FinishReason finish_reason = FinishReason::kLength;
  int image_tokens = 0;
  int tiles = 0;
  uint64_t seed = 0;
  Timings timings;
};

// What is reported while a request runs. All may be empty. Called on the thread of `generate`.
struct Observer {
  std::function<void(std::string_view delta)> text = {};  // new text, whole characters
  std::function<void(int done, int total)> tiles = {};    // tiles encoded so far
  std::function<bool()> cancelled = {};                   // asked after each tile, chunk and token
};

// Owns the weights, the cache and the compute threads of one checkpoint.
// Threads: one caller at a time. The answer to a request does not depend on num_threads or prefill_chunk.
class Engine {
 public:
  static Engine load(const std::filesystem::path& folder, const EngineOptions& options = {});
  Engine(Engine&&) noexcept;
  Engine& operator=(Engine&&) noexcept;
  ~Engine();

  // Answers one request. Errors: those of Processor::prompt, kContextLengthExceeded (with the number of image tokens),
  // kInvalidValue, kNumeric.
  Answer generate(const Request& request, const Observer& observer = {});

  // What generation_config.json asks for: greedy unless do_sample is true there.
  SamplingParams default_sampling() const;
  const Processor& processor() const;
  const Idefics3Config& config() const;
  int max_model_len() const;
  std::string_view kernels() const;  // the CPU level in use: "ref", "avx2", "avx512", "amx"
  std::string_view dtype() const;    // "f32", "bf16", "int8", "q8" or "q4"
  struct Memory {
    size_t weights, kv_cache, scratch;  // bytes; the cache takes physical memory only where it was used
  };
  Memory memory() const;

  // The tensors that hold a NaN or an Inf; empty unless EngineOptions::allow_nonfinite let them in.
  const std::vector<std::string>& nonfinite() const;

  // The model that answers, for callers inside the library (src/engine/engine_parts.h).
  struct Parts;
  Parts& parts() { return *parts_; }

 private:
  explicit Engine(std::unique_ptr<Parts> parts);
  std::unique_ptr<Parts> parts_;
};

}  // namespace idefics
