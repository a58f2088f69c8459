// Arrays that go into the model and come out of it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace idefics {

// What a Tensor is made of. The 16-bit formats are stored as their bits (uint16_t).
enum class TensorDType : uint8_t { kF32, kBf16, kF16, kI32, kI64, kU32, kU8 };
// "float32", "bfloat16", "float16", "int32", "int64", "uint32", "uint8".
std::string_view tensor_dtype_name(TensorDType dtype);
inline constexpr int tensor_dtype_bytes(TensorDType dtype) {
  switch (dtype) {
    case TensorDType::kF32:
    case TensorDType::kI32:
    case TensorDType::kU32: return 4;
    case TensorDType::kBf16:
    case TensorDType::kF16: return 2;
    case TensorDType::kI64: return 8;
    case TensorDType::kU8: return 1;
  }
  return 0;
}

// A dense array on the CPU, row-major, with nothing between its elements: what DLPack calls contiguous.
// It owns its bytes or borrows them. Copying a Tensor copies no byte: the copies share them, as NumPy's views do.
//
//   Tensor tokens = Tensor::of<int64_t>({3}, {1, 5, 9});
//   Tensor pixels = Tensor::borrow(TensorDType::kF32, {1, 3, 364, 364}, values.data());   // values outlive pixels
//   std::span<const float> logits = outputs.logits.as<float>();
//
// Threads: as a pointer to the bytes.
class Tensor {
 public:
  Tensor() = default;  // float32 [0]

  // Owns zeroed bytes, aligned to 64.   Errors: kInvalidValue (a negative size), kOutOfMemory.
  static Tensor zeros(TensorDType dtype, std::vector<int64_t> shape);
  // Owns a copy of `values`, which must be as many as the shape says.   Errors: kInvalidValue.
  template <typename T>
  static Tensor of(std::vector<int64_t> shape, std::span<const T> values) {
    return copy_of(dtype_of<T>(), std::move(shape), std::as_bytes(values));
  }
  template <typename T>
  static Tensor of(std::vector<int64_t> shape, std::initializer_list<T> values) {
    return of<T>(std::move(shape), std::span<const T>(values.begin(), values.size()));
  }
  // Borrows `data`, which must hold as many elements as the shape says, aligned to one element. `keeper`, when given,
  // is held as long as a copy of the Tensor lives.
  static Tensor borrow(TensorDType dtype, std::vector<int64_t> shape, const void* data,
                       std::shared_ptr<const void> keeper = nullptr);

  TensorDType dtype() const { return dtype_; }
  const std::vector<int64_t>& shape() const { return shape_; }
  int rank() const { return static_cast<int>(shape_.size()); }
  int64_t num_elements() const { return num_elements_; }
  size_t num_bytes() const {
    return static_cast<size_t>(num_elements_) * static_cast<size_t>(tensor_dtype_bytes(dtype_));
  }
  // "float32 [2, 49280]".
  std::string describe() const;

  // The bytes. Writing to them is the caller's decision, also where they were borrowed.
  void* data() const { return data_; }
  // All elements in order.   Errors: kInvalidValue when T is not the dtype's type (uint16_t for the 16-bit formats).
  template <typename T>
  std::span<const T> as() const {
    check_is(dtype_of<T>());
    return {static_cast<const T*>(data_), static_cast<size_t>(num_elements_)};
  }
  template <typename T>
  std::span<T> as_mutable() {
    check_is(dtype_of<T>());
    return {static_cast<T*>(data_), static_cast<size_t>(num_elements_)};
  }

 private:
  template <typename T>
  static constexpr TensorDType dtype_of() {
    if constexpr (std::is_same_v<T, float>)
      return TensorDType::kF32;
    else if constexpr (std::is_same_v<T, int32_t>)
      return TensorDType::kI32;
    else if constexpr (std::is_same_v<T, int64_t>)
      return TensorDType::kI64;
    else if constexpr (std::is_same_v<T, uint32_t>)
      return TensorDType::kU32;
    else if constexpr (std::is_same_v<T, uint8_t>)
      return TensorDType::kU8;
    else {
      static_assert(std::is_same_v<T, uint16_t>,
                    "float, int32_t, int64_t, uint32_t, uint8_t, or uint16_t for bfloat16");
      return TensorDType::kBf16;
    }
  }
  static Tensor copy_of(TensorDType dtype, std::vector<int64_t> shape, std::span<const std::byte> values);
  void check_is(TensorDType wanted) const;

  TensorDType dtype_ = TensorDType::kF32;
  std::vector<int64_t> shape_ = {0};
  int64_t num_elements_ = 0;
  void* data_ = nullptr;
  std::shared_ptr<const void> keeper_;
};

}  // namespace idefics
