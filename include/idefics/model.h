// The model step by step, under the names of the reference: inputs in, logits and hidden states out. What to ask and
// how to choose tokens is the caller's business; Engine (engine.h) does both.
//
//   Idefics3Model model = Idefics3Model::load("models/x");
//   PagedKVCacheManager kv(model.config().get_kv_params(), 64);
//   kv.claim(context);
//   for (;;) {
//     kv.alloc(context);
//     const Batch batch = {&context};
//     const KVCacheInputs cache = kv.runtime_inputs(batch);
//     ModelOutputs outputs = model.execute(model.prepare_initial_token_inputs({&batch, 1}, &cache));
//     context.update(choose(outputs.logits));
//   }
//
// Letters: B sequences of the step, T active tokens, R rows with logits, V vocabulary, E text width, L layers,
// M tiles, S image tokens a tile, P = M S.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "idefics/config.h"
#include "idefics/inputs.h"
#include "idefics/tensor.h"

namespace idefics {

// What models compute on: threads, and the instructions of a CPU level (IDEFICS_KERNELS, or the best there is). Copies
// share it. Models of one session take turns.
class InferenceSession {
 public:
  explicit InferenceSession(int num_threads = 0);  // 0: the CPUs this process may use
  int num_threads() const;
  std::string_view kernels() const;  // "ref", "avx2", "avx512", "amx"

  struct Parts;
  const std::shared_ptr<Parts>& parts() const { return parts_; }

 private:
  std::shared_ptr<Parts> parts_;
};

// Tensors in, tensors out: the vision model or the language model of an Idefics3Model, to be called on its own. Copies
// share weights and scratch memory.
class Model {
 public:
  // Inputs and outputs of the two:
  //   vision    pixel_values float32 or bfloat16 [M, 3, image_size, image_size]
  //             -> image embeddings float32 [P, E], tile by tile
  //   language  tokens, input_row_offsets, return_n_logits, image_embeddings float32 [P, E], image_token_indices,
  //             and the tensors of KVCacheInputs::flatten
  //             -> next_token_logits, and unless ReturnLogits::kLastToken also logits and logit_offsets; with hidden
  //             states these last
  // Errors: kInvalidValue naming the input; kContextLengthExceeded; kOutOfMemory.
  std::vector<Tensor> execute(std::span<const Tensor> inputs) const;
  std::vector<Tensor> operator()(std::span<const Tensor> inputs) const { return execute(inputs); }
  std::string_view name() const;  // "vision", "language"

  struct Parts;

 private:
  friend class Idefics3Model;
  explicit Model(std::shared_ptr<Parts> parts) : parts_(std::move(parts)) {}
  std::shared_ptr<Parts> parts_;
};

// What comes out of a step. Sequence i owns the rows [logit_offsets[i], logit_offsets[i + 1]) of `logits`.
//
//   mode        logits       next_token_logits   logit_offsets
//   kLastToken  [B, V]       the same tensor     absent
//   kVariable   [R, V]       [B, V]              int64 [B + 1]: of each sequence the last min(n, active tokens) rows
//   kAll        [T, V]       [B, V]              uint32 [B + 1]: input_row_offsets
//
// Rows are in the order of the tokens. The logits of a token are the same bytes in every mode and every batch.
struct ModelOutputs {
  Tensor logits;                            // float32
  std::optional<Tensor> next_token_logits;  // float32: of the last active token of each sequence
  std::optional<Tensor> logit_offsets;
  std::optional<Tensor> hidden_states;  // float32, as ReturnHiddenStates says
};

// More of load().
struct ModelOptions {
  ReturnHiddenStates return_hidden_states = ReturnHiddenStates::kNone;
  std::vector<int> hidden_state_layers = {};  // of kSelectedLayers: 0 .. L; empty: all L + 1
  bool allow_nonfinite = false;               // load weights with NaN or Inf
};

// The name of a tensor in a file -> its name in transformers ("model.text_model.norm.weight"). Empty: not needed.
using WeightsAdapter = std::function<std::string(std::string_view)>;

// Threads: may be called from several at once; steps of one session take turns. Two steps must not write the same
// pages.
class Idefics3Model {
 public:
  using ModelConfig = Idefics3Config;  // model_config_cls of the reference

  // Reads the configuration from pipeline_config.model.huggingface_config, packs the weights of the folder `weights`
  // in pipeline_config.model.dtype, and makes both models. `kv_cache_config` takes the place of
  // pipeline_config.model.kv_cache. `adapter`: for names that no known variant of the format has.
  // Errors: kBadModel, kInvalidValue, kOutOfMemory.
  static Idefics3Model load(const PipelineConfig& pipeline_config, const InferenceSession& session,
                            const std::vector<DeviceRef>& devices, const KVCacheConfig& kv_cache_config,
                            const std::filesystem::path& weights, const WeightsAdapter& adapter = nullptr,
                            ReturnLogits return_logits = ReturnLogits::kLastToken, const ModelOptions& options = {});
  // The same with everything from the folder, on a session of its own. `dtype`: nothing means bfloat16 when the weights
  // are stored so, else float32.
  static Idefics3Model load(const std::filesystem::path& folder, ReturnLogits return_logits = ReturnLogits::kLastToken,
                            const ModelOptions& options = {}, std::optional<DType> dtype = std::nullopt);

  // As Idefics3Config::calculate_max_seq_len.
  static int calculate_max_seq_len(const PipelineConfig& pipeline_config, const HuggingFaceConfig& huggingface_config);

  // The vision and the language model on a session, with scratch memory of their own; the weights are shared.
  std::pair<Model, Model> load_model(const InferenceSession& session) const;
  const Model& vision_model() const { return vision_model_; }
  const Model& language_model() const { return language_model_; }
  const Idefics3Config& config() const;
  const InferenceSession& session() const { return session_; }

  // The inputs of the next step of the sequences of the one batch there is: their active tokens, and the tiles that
  // these touch. A tile that reaches into the active tokens only in part is encoded whole, and the features that have
  // no active token are dropped. A vision token without an image (a generated one) is a token as any other.
  // `kv_cache_inputs` of the same batch are taken over; without them execute() refuses the inputs.
  // Errors: kInvalidValue: not exactly one batch, an empty batch, a sequence without active tokens, images that do not
  // fit the tokens (TextAndVisionContext::check), n below 1.
  Idefics3Inputs prepare_initial_token_inputs(std::span<const Batch> replica_batches,
                                              const KVCacheInputs* kv_cache_inputs = nullptr,
                                              int return_n_logits = 1) const;
  // The inputs of the step after `prev_model_inputs`, one new token a sequence, without contexts: the same pages, the
  // lengths grown by what was active.
  //   next_tokens  int64 [B]
  // Errors: kInvalidValue.
  Idefics3Inputs prepare_next_token_inputs(const Tensor& next_tokens, const Idefics3Inputs& prev_model_inputs) const;

  // One step: the vision model, if there are pixels, then the language model. Keys and values of the active tokens are
  // in the cache afterwards.
  // Errors: kInvalidValue naming the input that is missing, of a wrong shape or out of range ("Vision embedding shape
  // mismatch: 3 embeddings but 4 indices."); kContextLengthExceeded; kOutOfMemory. The cache is then as it was.
  ModelOutputs execute(const Idefics3Inputs& model_inputs) const;

 private:
  Idefics3Model(InferenceSession session, std::pair<Model, Model> models)
      : session_(std::move(session)),
        vision_model_(std::move(models.first)),
        language_model_(std::move(models.second)) {}
  InferenceSession session_;
  Model vision_model_, language_model_;
};

}  // namespace idefics
