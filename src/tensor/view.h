// Borrowed tensors: the rank is in the type, the last dimension is contiguous.
#pragma once

#include <cstdint>
#include <type_traits>

#include "base/check.h"
#include "kernels/packing.h"
#include "kernels/table.h"

namespace idefics {

using Element = kernels::DType;  // what matrices are made of (the formats of files: idefics::DType)
using KvType = kernels::KvType;  // of keys and values
inline constexpr KvType kv_type_of(Element dtype) { return dtype == Element::kF32 ? KvType::kF32 : KvType::kBf16; }

using Format = kernels::Format;  // what packed matrices are made of: an Element, or a quantised form

inline constexpr int64_t dtype_bytes(Element dtype) { return dtype == Element::kF32 ? 4 : 2; }

// Rows of T with a stride between rows. Does not own; as cheap to copy as a pointer.
template <typename T>
class Matrix {
 public:
  Matrix() = default;
  Matrix(T* data, int64_t rows, int64_t cols) : Matrix(data, rows, cols, cols) {}
  Matrix(T* data, int64_t rows, int64_t cols, int64_t stride)
      : data_(data), rows_(rows), cols_(cols), stride_(stride) {}
  // A matrix of T is also one of const T.
  template <typename U>
  requires(std::is_same_v<const U, T> && !std::is_const_v<U>) Matrix(Matrix<U> other)
      : Matrix(other.data(), other.rows(), other.cols(), other.stride()) {}

  T* data() const { return data_; }
  int64_t rows() const { return rows_; }
  int64_t cols() const { return cols_; }
  int64_t stride() const { return stride_; }
  T* row(int64_t i) const { return data_ + i * stride_; }
  // Rows [first, first + count), columns [first, first + count).
  Matrix row_range(int64_t first, int64_t count) const {
    IDEFICS_CHECK(first >= 0 && count >= 0 && first + count <= rows_);
    return Matrix(row(first), count, cols_, stride_);
  }
  Matrix col_range(int64_t first, int64_t count) const {
    IDEFICS_CHECK(first >= 0 && count >= 0 && first + count <= cols_);
    return Matrix(data_ + first, rows_, count, stride_);
  }

 private:
  T* data_ = nullptr;
  int64_t rows_ = 0, cols_ = 0, stride_ = 0;
};

// What products with q4 and int8 matrices want of their left operand besides its elements.
struct PreparedOperand {
  float* groups = nullptr;      // [rows, groups of its columns] kernels::QuantGemmArgs::a_groups
  int32_t* integers = nullptr;  // the same, a_integers
  int8_t* values = nullptr;     // [rows, columns rounded up to whole groups], the int8 operand
  int64_t num_groups = 0;
};

// A matrix in the compute type: what goes into a matrix product, or queries, keys and values. bf16 rows have an even
// stride, and when the number of columns is odd the element behind the last is zero (kernels::GemmArgs).
//
// Products with q4 and int8 matrices want more of their left operand than its elements. An activation for such a
// product has room for that, which the product fills; Arena::take_activation makes them.
class Activation {
 public:
  Activation() = default;
  Activation(void* data, Element dtype, int64_t rows, int64_t cols, int64_t stride, PreparedOperand prepared = {})
      : data_(data), dtype_(dtype), rows_(rows), cols_(cols), stride_(stride), prepared_(prepared) {}

  Activation(Matrix<float> x) : Activation(x.data(), Element::kF32, x.rows(), x.cols(), x.stride()) {}

  void* data() const { return data_; }
  Element dtype() const { return dtype_; }
  int64_t rows() const { return rows_; }
  int64_t cols() const { return cols_; }
  int64_t stride() const { return stride_; }
  const PreparedOperand& prepared() const { return prepared_; }
  void* row(int64_t i) const { return static_cast<char*>(data_) + i * stride_ * dtype_bytes(dtype_); }
  Activation row_range(int64_t first, int64_t count) const {
    IDEFICS_CHECK(first >= 0 && count >= 0 && first + count <= rows_);
    PreparedOperand part = prepared_;
    if (part.groups != nullptr) part.groups += first * part.num_groups;
    if (part.integers != nullptr) part.integers += first * part.num_groups;
    if (part.values != nullptr) part.values += first * part.num_groups * kernels::kGroupInt8;
    return Activation(row(first), dtype_, count, cols_, stride_, part);
  }
  // Columns [first, first + count), as queries, keys or values: not as an operand of a product.
  Activation col_range(int64_t first, int64_t count) const {
    IDEFICS_CHECK(first >= 0 && count >= 0 && first + count <= cols_);
    return Activation(static_cast<char*>(data_) + first * dtype_bytes(dtype_), dtype_, rows_, count, stride_);
  }

 private:
  void* data_ = nullptr;
  Element dtype_ = Element::kF32;
  int64_t rows_ = 0, cols_ = 0, stride_ = 0;
  PreparedOperand prepared_;
};

}  // namespace idefics
