#include "arrays.h"

#include <algorithm>
#include <array>
#include <memory>
#include <utility>
#include <vector>

#include "idefics/error.h"

namespace idefics::python {

namespace {

constexpr std::pair<TensorDType, nb::dlpack::dtype> kTypes[] = {
    {TensorDType::kF32, {static_cast<uint8_t>(nb::dlpack::dtype_code::Float), 32, 1}},
    {TensorDType::kBf16, {static_cast<uint8_t>(nb::dlpack::dtype_code::Bfloat), 16, 1}},
    {TensorDType::kF16, {static_cast<uint8_t>(nb::dlpack::dtype_code::Float), 16, 1}},
    {TensorDType::kI32, {static_cast<uint8_t>(nb::dlpack::dtype_code::Int), 32, 1}},
    {TensorDType::kI64, {static_cast<uint8_t>(nb::dlpack::dtype_code::Int), 64, 1}},
    {TensorDType::kU32, {static_cast<uint8_t>(nb::dlpack::dtype_code::UInt), 32, 1}},
    {TensorDType::kU8, {static_cast<uint8_t>(nb::dlpack::dtype_code::UInt), 8, 1}},
};

nb::dlpack::dtype code_of(TensorDType dtype) {
  return std::find_if(std::begin(kTypes), std::end(kTypes), [&](const auto& t) { return t.first == dtype; })->second;
}

using AnyArray = nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu>;

Tensor borrow(const AnyArray& array) {
  const auto type =
      std::find_if(std::begin(kTypes), std::end(kTypes), [&](const auto& t) { return t.second == array.dtype(); });
  if (type == std::end(kTypes)) {
    throw Error(ErrorCode::kInvalidValue,
                "array: its type is none of float32, bfloat16, float16, int32, int64, uint32, uint8; convert it");
  }
  std::vector<int64_t> shape;
  for (size_t i = 0; i < array.ndim(); ++i) shape.push_back(static_cast<int64_t>(array.shape(i)));
  // The last copy of a Tensor may go away on a thread that does not hold the interpreter's lock.
  std::shared_ptr<const void> keeper(new AnyArray(array), [](const void* held) {
    nb::gil_scoped_acquire lock;
    delete static_cast<const AnyArray*>(held);
  });
  return Tensor::borrow(type->first, std::move(shape), array.data(), std::move(keeper));
}

}  // namespace

nb::object to_array(const Tensor& tensor) {
  auto* held = new Tensor(tensor);
  const nb::capsule owner(held, [](void* p) noexcept { delete static_cast<Tensor*>(p); });
  std::vector<size_t> shape(tensor.shape().begin(), tensor.shape().end());
  static char nothing[8];  // arrays without elements need an address, too
  void* data = tensor.data() != nullptr ? tensor.data() : nothing;
  if (tensor.dtype() == TensorDType::kBf16) {
    return nb::cast(nb::ndarray<nb::array_api>(data, shape.size(), shape.data(), owner, nullptr, code_of(tensor.dtype())));
  }
  return nb::cast(nb::ndarray<nb::numpy>(data, shape.size(), shape.data(), owner, nullptr, code_of(tensor.dtype())));
}

nb::object to_array(const std::optional<Tensor>& tensor) { return tensor ? to_array(*tensor) : nb::none(); }

nb::object to_array(std::span<const int32_t> values) {
  return to_array(Tensor::of<int32_t>({static_cast<int64_t>(values.size())}, values));
}

Tensor to_tensor(nb::handle object) {
  AnyArray array;
  if (nb::try_cast(object, array)) return borrow(array);
  return borrow(nb::cast<AnyArray>(nb::module_::import_("numpy").attr("asarray")(object)));
}

std::optional<Tensor> to_optional_tensor(nb::handle object) {
  return object.is_none() ? std::nullopt : std::optional(to_tensor(object));
}

}  // namespace idefics::python
