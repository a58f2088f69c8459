#include "pipeline/model_state.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "idefics/error.h"

namespace idefics {

InferenceSession::Parts::Parts(int num_threads)
    : kernels(kernels::choose_table()), pool(num_threads > 0 ? num_threads : num_available_cpus()) {}

InferenceSession::InferenceSession(int num_threads) {
  if (num_threads < 0 || num_threads > 1024) {
    throw Error(ErrorCode::kInvalidValue, fmt::format("num_threads is {}, wanted 0 to 1024", num_threads));
  }
  parts_ = std::make_shared<Parts>(num_threads);
}

int InferenceSession::num_threads() const { return parts_->pool.num_threads(); }
std::string_view InferenceSession::kernels() const { return parts_->kernels.name; }

Exec ModelState::exec(int64_t max_rows, int64_t max_pages, int64_t max_logit_rows) {
  const size_t wanted = Network::scratch_bytes(config(), network->dtype(), max_rows, max_pages, max_logit_rows);
  if (wanted > arena.capacity()) {
    arena = Arena();  // give back before taking
    arena = Arena(wanted, "the scratch memory of a step");
  }
  return {session.parts()->kernels, session.parts()->pool, arena};
}

KvType kv_type_of(DType dtype) {
  switch (dtype) {
    case DType::kF32: return KvType::kF32;
    case DType::kBf16: return KvType::kBf16;
    case DType::kQ8: return KvType::kQ8;
    case DType::kF16: break;
  }
  IDEFICS_CHECK(false);
}

TensorDType kv_tensor_dtype(KvType dtype) {
  switch (dtype) {
    case KvType::kF32: return TensorDType::kF32;
    case KvType::kBf16: return TensorDType::kBf16;
    case KvType::kQ8: break;
  }
  return TensorDType::kU8;
}

std::vector<int64_t> kv_tensor_shape(const KvCache::Shape& s, int64_t num_pages) {
  const int64_t blocks = s.page_size / kernels::kBlock,
                elements = KvCache::page_bytes(s) / tensor_dtype_bytes(kv_tensor_dtype(s.dtype));
  return {num_pages, s.num_layers, s.kv_heads, blocks, elements / (int64_t{s.num_layers} * s.kv_heads * blocks)};
}

void check_tensor(const char* name, const Tensor& tensor, TensorDType dtype, std::initializer_list<int64_t> shape) {
  check_tensor(name, tensor, dtype, std::span(shape.begin(), shape.size()));
}

void check_tensor(const char* name, const Tensor& tensor, TensorDType dtype, std::span<const int64_t> shape) {
  const bool fits = std::equal(shape.begin(), shape.end(), tensor.shape().begin(), tensor.shape().end(),
                               [](int64_t wanted, int64_t found) { return wanted == -1 || wanted == found; });
  if (fits && tensor.dtype() == dtype) return;
  std::vector<std::string> sizes;
  for (const int64_t size : shape) sizes.push_back(size == -1 ? "any" : std::to_string(size));
  throw Error(ErrorCode::kInvalidValue, fmt::format("{} is {}, wanted {} [{}]", name, tensor.describe(),
                                                    tensor_dtype_name(dtype), fmt::join(sizes, ", ")));
}

void check_pixel_values(const Idefics3Config& config, const Tensor& pixel_values) {
  const int side = config.vision_config.image_size;
  check_tensor("pixel_values", pixel_values,
               pixel_values.dtype() == TensorDType::kBf16 ? TensorDType::kBf16 : TensorDType::kF32,
               {-1, 3, side, side});
}

}  // namespace idefics
