// Tensors of the library as arrays of Python, and back, without copying.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <optional>
#include <span>

#include "idefics/tensor.h"

namespace idefics::python {

namespace nb = nanobind;

// A NumPy array over the tensor's bytes. bfloat16, which NumPy lacks, becomes an object with __dlpack__, for
// torch.from_dlpack.
nb::object to_array(const Tensor& tensor);
nb::object to_array(const std::optional<Tensor>& tensor);  // None when there is none
// A copy.
nb::object to_array(std::span<const int32_t> values);

// A tensor over the bytes of a NumPy array or anything with __dlpack__ on the CPU. Arrays that are not dense are
// copied, other sequences go through numpy.asarray. Errors: Error of kInvalidValue, TypeError.
Tensor to_tensor(nb::handle object);
std::optional<Tensor> to_optional_tensor(nb::handle object);

}  // namespace idefics::python
