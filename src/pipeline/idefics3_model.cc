#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <numeric>

#include "base/half.h"
#include "checkpoint/checkpoint.h"
#include "idefics/error.h"
#include "idefics/model.h"
#include "pipeline/model_state.h"

namespace idefics {

namespace {

[[noreturn]] void fail(const std::string& problem) { throw Error(ErrorCode::kInvalidValue, problem); }

void check_choices(const Idefics3Config& config) {
  const KVCacheParams& kv = config.get_kv_params();
  if (kv.page_size % kernels::kBlock != 0) {
    fail(fmt::format("kv_cache_config: page_size is {}, wanted a multiple of {}", kv.page_size, kernels::kBlock));
  }
}

ModelOptions check_options(ModelOptions options, int num_layers) {
  if (options.return_hidden_states != ReturnHiddenStates::kSelectedLayers) {
    if (!options.hidden_state_layers.empty()) fail("hidden_state_layers: wanted only with kSelectedLayers");
    return options;
  }
  for (const int layer : options.hidden_state_layers) {
    if (layer < 0 || layer > num_layers) {
      fail(fmt::format("hidden_state_layers: {}, wanted 0 to {}", layer, num_layers));
    }
  }
  if (options.hidden_state_layers.empty()) {
    options.hidden_state_layers.resize(static_cast<size_t>(num_layers) + 1);
    std::iota(options.hidden_state_layers.begin(), options.hidden_state_layers.end(), 0);
  }
  return options;
}

void refuse_nonfinite(const std::vector<std::string>& names, const std::filesystem::path& folder) {
  if (names.empty()) return;
  throw Error(ErrorCode::kBadModel, fmt::format("{}: {} of the tensors hold NaN or Inf, {} first; the file is damaged",
                                                folder.string(), names.size(), names.front()));
}

// The first and one past the last of the images that have tokens among the active ones.
std::span<const ImageMetadata> images_of_step(const TextAndVisionContext& context) {
  const std::span<const ImageMetadata> next = context.next_images();
  const int end = context.tokens.processed_length() + context.tokens.active_length();
  const auto last = std::find_if(next.begin(), next.end(), [&](const ImageMetadata& i) { return i.start_idx >= end; });
  return next.first(static_cast<size_t>(last - next.begin()));
}

// Tiles of all sequences one behind the other, and where each of their features goes.
class VisionInputs {
 public:
  VisionInputs(const Idefics3Config& config) : config_(config) {}

  void add(const TextAndVisionContext& context, int64_t first_row) {
    const int S = config_.image_seq_len(), processed = context.tokens.processed_length(),
              active = context.tokens.active_length();
    for (const ImageMetadata& image : images_of_step(context)) {
      if (image.end_idx - image.start_idx != S) {
        fail(fmt::format("request \"{}\": an image has {} tokens, wanted {}", context.request_id,
                         image.end_idx - image.start_idx, S));
      }
      const int side = config_.vision_config.image_size;
      check_tensor("ImageMetadata::pixel_values", image.pixel_values, TensorDType::kF32, {3, side, side});
      tiles_.push_back(image.pixel_values);
      for (int t = image.start_idx; t < image.end_idx; ++t) {
        const int rel = t - processed;
        indices_.push_back(rel >= 0 && rel < active ? static_cast<int32_t>(first_row + rel)
                                                    : std::numeric_limits<int32_t>::min());
      }
    }
  }

  Tensor indices() const { return Tensor::of<int32_t>({std::ssize(indices_)}, std::span<const int32_t>(indices_)); }

  // Of the vision tower's type; nothing when there are no tiles.
  std::optional<Tensor> pixel_values() const {
    if (tiles_.empty()) return std::nullopt;
    const bool wide = config_.vision_config.dtype == DType::kF32;
    const int64_t side = config_.vision_config.image_size, size = 3 * side * side;
    Tensor out = Tensor::zeros(wide ? TensorDType::kF32 : TensorDType::kBf16, {std::ssize(tiles_), 3, side, side});
    for (int64_t i = 0; i < std::ssize(tiles_); ++i) {
      const auto from = tiles_[static_cast<size_t>(i)].as<float>();
      if (wide) {
        std::copy(from.begin(), from.end(), out.as_mutable<float>().begin() + i * size);
      } else {
        std::transform(from.begin(), from.end(), out.as_mutable<uint16_t>().begin() + i * size, f32_to_bf16);
      }
    }
    return out;
  }

 private:
  const Idefics3Config& config_;
  std::vector<Tensor> tiles_;
  std::vector<int32_t> indices_;
};

Tensor no_indices() { return Tensor::zeros(TensorDType::kI32, {0}); }

KVCacheInputs after_step(const KVCacheInputs& before, std::span<const uint32_t> offsets) {
  KVCacheInputs after = before;
  const auto B = static_cast<int64_t>(offsets.size()) - 1;
  check_tensor("cache_lengths", before.cache_lengths, TensorDType::kU32, {B});
  after.cache_lengths = Tensor::of<uint32_t>({B}, before.cache_lengths.as<uint32_t>());
  uint32_t most = 0;
  for (size_t i = 0; i + 1 < offsets.size(); ++i) {
    uint32_t& length = after.cache_lengths.as_mutable<uint32_t>()[i];
    length += offsets[i + 1] - offsets[i];
    most = std::max(most, length + 1);
  }
  after.max_prompt_length = Tensor::of<uint32_t>({1}, {1});
  after.max_cache_length = Tensor::of<uint32_t>({1}, {most});
  return after;
}

}  // namespace

std::vector<Tensor> Model::execute(std::span<const Tensor> inputs) const {
  const std::lock_guard turn(parts_->state->session.parts()->running);
  return parts_->kind == ModelKind::kVision ? run_vision_model(*parts_->state, inputs)
                                            : run_language_model(*parts_->state, inputs);
}

std::string_view Model::name() const { return parts_->kind == ModelKind::kVision ? "vision" : "language"; }

Idefics3Model Idefics3Model::load(const PipelineConfig& pipeline_config, const InferenceSession& session,
                                  const std::vector<DeviceRef>& devices, const KVCacheConfig& kv_cache_config,
                                  const std::filesystem::path& weights, const WeightsAdapter& adapter,
                                  ReturnLogits return_logits, const ModelOptions& options) {
  idefics::ModelConfig model = pipeline_config.model;
  model.devices = devices;
  model.kv_cache = kv_cache_config;
  Idefics3Config config = Idefics3Config::initialize(pipeline_config, &model);
  check_choices(config);
  const ModelOptions checked = check_options(options, config.text_config.num_hidden_layers);
  const Checkpoint checkpoint = Checkpoint::open(weights, adapter);
  checkpoint.verify(config);
  config.finalize(*model.huggingface_config, checkpoint.state_dict(), return_logits);
  config.text_config.return_hidden_states = options.return_hidden_states;
  auto network = std::make_shared<Network>(session.parts()->pool, checkpoint, config,
                                           model.dtype == DType::kF32 ? Element::kF32 : Element::kBf16);
  if (!options.allow_nonfinite) refuse_nonfinite(network->nonfinite(), weights);
  auto state = std::make_shared<ModelState>(session, std::move(network), checked);
  return Idefics3Model(session, {Model(std::make_shared<Model::Parts>(ModelKind::kVision, state)),
                                 Model(std::make_shared<Model::Parts>(ModelKind::kLanguage, state))});
}

Idefics3Model Idefics3Model::load(const std::filesystem::path& folder, ReturnLogits return_logits,
                                  const ModelOptions& options, std::optional<DType> dtype) {
  PipelineConfig pipeline;
  pipeline.model.model_path = folder;
  pipeline.model.huggingface_config = HuggingFaceConfig::load(folder);
  pipeline.model.dtype = dtype ? *dtype : Checkpoint::open(folder).compute_dtype();
  return load(pipeline, InferenceSession(), pipeline.model.devices, pipeline.model.kv_cache, folder, nullptr,
              return_logits, options);
}

int Idefics3Model::calculate_max_seq_len(const PipelineConfig& pipeline_config,
                                         const HuggingFaceConfig& huggingface_config) {
  return Idefics3Config::calculate_max_seq_len(pipeline_config, huggingface_config);
}

std::pair<Model, Model> Idefics3Model::load_model(const InferenceSession& session) const {
  const ModelState& mine = *vision_model_.parts_->state;
  auto state = std::make_shared<ModelState>(session, mine.network, mine.options);
  return {Model(std::make_shared<Model::Parts>(ModelKind::kVision, state)),
          Model(std::make_shared<Model::Parts>(ModelKind::kLanguage, state))};
}

const Idefics3Config& Idefics3Model::config() const { return vision_model_.parts_->state->config(); }

Idefics3Inputs Idefics3Model::prepare_initial_token_inputs(std::span<const Batch> replica_batches,
                                                           const KVCacheInputs* kv_cache_inputs,
                                                           int return_n_logits) const {
  if (replica_batches.size() != 1)
    fail(fmt::format("replica_batches: {} batches, wanted exactly one", replica_batches.size()));
  const Batch& batch = replica_batches.front();
  if (batch.empty()) fail("replica_batches: the batch is empty");
  if (return_n_logits < 1) fail(fmt::format("return_n_logits is {}, wanted 1 or more", return_n_logits));
  std::vector<int64_t> tokens;
  std::vector<uint32_t> offsets = {0};
  VisionInputs vision(config());
  for (const TextAndVisionContext* context : batch) {
    if (context->tokens.active_length() == 0)
      fail(fmt::format("request \"{}\": it has no active tokens", context->request_id));
    context->check();
    vision.add(*context, std::ssize(tokens));
    tokens.insert(tokens.end(), context->tokens.active().begin(), context->tokens.active().end());
    offsets.push_back(static_cast<uint32_t>(tokens.size()));
  }
  Idefics3Inputs inputs;
  inputs.tokens = Tensor::of<int64_t>({std::ssize(tokens)}, std::span<const int64_t>(tokens));
  inputs.input_row_offsets = Tensor::of<uint32_t>({std::ssize(offsets)}, std::span<const uint32_t>(offsets));
  inputs.return_n_logits = Tensor::of<int64_t>({1}, {return_n_logits});
  inputs.pixel_values = vision.pixel_values();
  inputs.image_token_indices = vision.indices();
  if (kv_cache_inputs != nullptr) inputs.kv_cache_inputs = *kv_cache_inputs;
  return inputs;
}

Idefics3Inputs Idefics3Model::prepare_next_token_inputs(const Tensor& next_tokens,
                                                        const Idefics3Inputs& prev_model_inputs) const {
  check_tensor("input_row_offsets", prev_model_inputs.input_row_offsets, TensorDType::kU32, {-1});
  const auto offsets = prev_model_inputs.input_row_offsets.as<uint32_t>();
  if (offsets.size() < 2) fail("prev_model_inputs: there is no sequence in input_row_offsets");
  const auto B = static_cast<int64_t>(offsets.size()) - 1;
  check_tensor("next_tokens", next_tokens, TensorDType::kI64, {B});
  std::vector<uint32_t> rows(offsets.size());
  std::iota(rows.begin(), rows.end(), 0u);
  Idefics3Inputs inputs;
  inputs.tokens = next_tokens;
  inputs.input_row_offsets = Tensor::of<uint32_t>({B + 1}, std::span<const uint32_t>(rows));
  inputs.return_n_logits = prev_model_inputs.return_n_logits;
  inputs.image_token_indices = no_indices();
  if (prev_model_inputs.kv_cache_inputs)
    inputs.kv_cache_inputs = after_step(*prev_model_inputs.kv_cache_inputs, offsets);
  return inputs;
}

ModelOutputs Idefics3Model::execute(const Idefics3Inputs& in) const {
  if (!in.kv_cache_inputs) fail("Idefics3 requires KV cache inputs");
  if (in.lora_ids || in.lora_ranks) fail("lora_ids, lora_ranks: the model has no adapters");
  if (in.hidden_states) fail("hidden_states: wanted by draft models only; this is none");
  Tensor embeddings = Tensor::zeros(TensorDType::kF32, {0, config().text_config.hidden_size}), indices = no_indices();
  if (in.has_vision_inputs()) {
    check_pixel_values(config(), *in.pixel_values);
    if (!in.image_token_indices) fail("image_token_indices: missing, but there are pixel_values");
    indices = *in.image_token_indices;
    // Before the work, not after it.
    const int64_t rows = in.pixel_values->shape()[0] * config().image_seq_len();
    if (rows != indices.num_elements()) {
      fail(fmt::format("Vision embedding shape mismatch: {} embeddings but {} indices.", rows, indices.num_elements()));
    }
    embeddings = vision_model_.execute(std::span(&*in.pixel_values, 1)).front();
  }
  std::vector<Tensor> inputs = {in.tokens, in.input_row_offsets, in.return_n_logits, embeddings, indices};
  for (Tensor& tensor : in.kv_cache_inputs->flatten()) inputs.push_back(std::move(tensor));
  std::vector<Tensor> out = language_model_.execute(inputs);

  const bool one = config().text_config.return_logits == ReturnLogits::kLastToken;
  ModelOutputs outputs{
      .logits = one ? out[0] : out[1], .next_token_logits = out[0], .logit_offsets = {}, .hidden_states = {}};
  if (!one) outputs.logit_offsets = out[2];
  const size_t hidden = one ? 1 : 3;
  if (out.size() > hidden) outputs.hidden_states = out[hidden];
  return outputs;
}

}  // namespace idefics
