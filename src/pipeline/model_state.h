// What the two models of an Idefics3Model run on.
#pragma once

#include <memory>
#include <mutex>

#include "base/thread_pool.h"
#include "idefics/model.h"
#include "model/network.h"

namespace idefics {

struct InferenceSession::Parts {
  explicit Parts(int num_threads);
  const kernels::Table& kernels;
  ThreadPool pool;
  std::mutex running;  // held by the model that computes
};

// Shared by the vision model and the language model of one session. Scratch memory grows to what the largest step took.
struct ModelState {
  ModelState(InferenceSession on, std::shared_ptr<const Network> weights, const ModelOptions& wanted)
      : session(std::move(on)), network(std::move(weights)), options(wanted) {}

  InferenceSession session;
  std::shared_ptr<const Network> network;
  ModelOptions options;
  Arena arena;

  const Idefics3Config& config() const { return network->config(); }
  // Scratch for a step; errors: kOutOfMemory.
  Exec exec(int64_t max_rows, int64_t max_pages, int64_t max_logit_rows);
};

enum class ModelKind { kVision, kLanguage };

struct Model::Parts {
  ModelKind kind;
  std::shared_ptr<ModelState> state;
};

// The two graphs (Model::execute). Errors: kInvalidValue naming the input.
std::vector<Tensor> run_vision_model(ModelState& state, std::span<const Tensor> inputs);
std::vector<Tensor> run_language_model(ModelState& state, std::span<const Tensor> inputs);

// KVCacheInputs::kv_blocks over a cache of this shape.
KvType kv_type_of(DType dtype);  // not kF16
TensorDType kv_tensor_dtype(KvType dtype);
std::vector<int64_t> kv_tensor_shape(const KvCache::Shape& shape, int64_t num_pages);

// Refuses a tensor of another dtype or shape; -1 stands for any size.
void check_tensor(const char* name, const Tensor& tensor, TensorDType dtype, std::span<const int64_t> shape);
void check_tensor(const char* name, const Tensor& tensor, TensorDType dtype, std::initializer_list<int64_t> shape);
// Refuses tiles of another size or type than the model's.
void check_pixel_values(const Idefics3Config& config, const Tensor& pixel_values);

}  // namespace idefics
