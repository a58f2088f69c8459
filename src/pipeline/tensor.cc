#include "idefics/tensor.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cstring>
#include <limits>
#include <new>

#include "base/checked_math.h"
#include "idefics/error.h"

namespace idefics {

namespace {

// Elements of a shape, whose bytes fit the address space.
int64_t count(TensorDType dtype, const std::vector<int64_t>& shape) {
  std::optional<uint64_t> elements = 1;
  for (const int64_t size : shape) {
    if (size < 0) {
      throw Error(ErrorCode::kInvalidValue,
                  fmt::format("tensor: shape [{}] has a negative size", fmt::join(shape, ", ")));
    }
    elements = checked_mul(*elements, static_cast<uint64_t>(size));
    if (!elements) break;
  }
  if (elements) {
    const auto bytes = checked_mul(*elements, static_cast<uint64_t>(tensor_dtype_bytes(dtype)));
    if (bytes && *bytes <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
      return static_cast<int64_t>(*elements);
  }
  throw Error(ErrorCode::kInvalidValue, fmt::format("tensor: shape [{}] is too large", fmt::join(shape, ", ")));
}

constexpr std::align_val_t kAlignment{64};

}  // namespace

std::string_view tensor_dtype_name(TensorDType dtype) {
  switch (dtype) {
    case TensorDType::kF32: return "float32";
    case TensorDType::kBf16: return "bfloat16";
    case TensorDType::kF16: return "float16";
    case TensorDType::kI32: return "int32";
    case TensorDType::kI64: return "int64";
    case TensorDType::kU32: return "uint32";
    case TensorDType::kU8: return "uint8";
  }
  return "?";
}

Tensor Tensor::zeros(TensorDType dtype, std::vector<int64_t> shape) {
  Tensor t;
  t.dtype_ = dtype;
  t.num_elements_ = count(dtype, shape);
  t.shape_ = std::move(shape);
  if (t.num_elements_ == 0) return t;
  void* memory = ::operator new(t.num_bytes(), kAlignment, std::nothrow);
  if (memory == nullptr)
    throw Error(ErrorCode::kOutOfMemory, fmt::format("tensor: no memory for {} bytes", t.num_bytes()));
  std::memset(memory, 0, t.num_bytes());
  t.data_ = memory;
  t.keeper_ =
      std::shared_ptr<const void>(memory, [](const void* p) { ::operator delete(const_cast<void*>(p), kAlignment); });
  return t;
}

Tensor Tensor::copy_of(TensorDType dtype, std::vector<int64_t> shape, std::span<const std::byte> values) {
  Tensor t = zeros(dtype, std::move(shape));
  if (t.num_bytes() != values.size()) {
    throw Error(ErrorCode::kInvalidValue,
                fmt::format("tensor: {} has {} elements, but {} values were given", t.describe(), t.num_elements_,
                            values.size() / static_cast<size_t>(tensor_dtype_bytes(dtype))));
  }
  if (!values.empty()) std::memcpy(t.data_, values.data(), values.size());
  return t;
}

Tensor Tensor::borrow(TensorDType dtype, std::vector<int64_t> shape, const void* data,
                      std::shared_ptr<const void> keeper) {
  Tensor t;
  t.dtype_ = dtype;
  t.num_elements_ = count(dtype, shape);
  t.shape_ = std::move(shape);
  t.data_ = const_cast<void*>(data);
  t.keeper_ = std::move(keeper);
  const auto alignment = static_cast<uintptr_t>(tensor_dtype_bytes(dtype));
  if (t.num_elements_ > 0 && (data == nullptr || reinterpret_cast<uintptr_t>(data) % alignment != 0)) {
    throw Error(ErrorCode::kInvalidValue,
                fmt::format("tensor: {} borrows {}", t.describe(), data == nullptr ? "nothing" : "unaligned memory"));
  }
  return t;
}

std::string Tensor::describe() const {
  return fmt::format("{} [{}]", tensor_dtype_name(dtype_), fmt::join(shape_, ", "));
}

void Tensor::check_is(TensorDType wanted) const {
  if (dtype_ == wanted || (dtype_ == TensorDType::kF16 && wanted == TensorDType::kBf16)) return;
  throw Error(ErrorCode::kInvalidValue,
              fmt::format("tensor: {} was read as {}", describe(), tensor_dtype_name(wanted)));
}

}  // namespace idefics
