// The safetensors file format, read only.
//
//   8 bytes   n, little-endian: length of the header, at most 100,000,000
//   n bytes   JSON object: "name": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [begin, end]}, ...; the optional
//   key
//             "__metadata__" holds an object of strings. Begins with '{', may be padded with white space at its end.
//   the rest  the tensors' bytes, little-endian, row-major; offsets count from here
//
// Everything is checked before a tensor can be seen: the tensors lie one behind the other without gap or overlap and
// fill the rest exactly, each has as many bytes as its shape and dtype say, and no name or key is given twice.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/files.h"

namespace idefics {

// Every dtype of the format. Weights are read from the first three only.
enum class StoredDType : uint8_t {
  kF32,
  kF16,
  kBf16,
  kF64,
  kC64,
  kF8E4M3,
  kF8E5M2,
  kF8E8M0,
  kF6E2M3,
  kF6E3M2,
  kF4,
  kI64,
  kI32,
  kI16,
  kI8,
  kU64,
  kU32,
  kU16,
  kU8,
  kBool,
};
// As it stands in a file, e.g. "BF16".
std::string_view stored_dtype_name(StoredDType dtype);
bool is_weight_dtype(StoredDType dtype);  // F32, F16 or BF16

struct TensorInfo {
  std::string name;
  StoredDType dtype = StoredDType::kF32;
  std::vector<int64_t> shape;
  std::span<const std::byte> bytes;  // borrowed from the file; not necessarily aligned
  // A convolution weight of shape [D, C, p, p] whose bytes lie in the order [D, p, p, C]. Never set by this file.
  bool channels_last = false;

  int64_t num_elements() const;
};

struct SafetensorsHeader {
  std::vector<TensorInfo> tensors;  // in the order of their bytes
  std::vector<std::pair<std::string, std::string>> metadata;
};

// Reads and checks a whole file. The spans point into `file`. `where` names it in errors.
// Errors: kBadModel, naming the tensor or the byte.
SafetensorsHeader parse_safetensors(std::span<const std::byte> file, std::string_view where);

// An open file: mapped, so tensors are read from disk when they are touched. Moves, does not copy.
class Safetensors {
 public:
  explicit Safetensors(const std::filesystem::path& path);

  const std::string& where() const { return where_; }
  const MappedFile& file() const { return file_; }
  const std::vector<TensorInfo>& tensors() const { return header_.tensors; }
  const std::vector<std::pair<std::string, std::string>>& metadata() const { return header_.metadata; }

 private:
  std::string where_;
  MappedFile file_;
  SafetensorsHeader header_;
};

// Elements first .. first + out.size() - 1 of a tensor, in row-major order of its shape, as float32. Exact.
// REQUIRES: a weight dtype, and that many elements.
void read_as_f32(const TensorInfo& tensor, std::span<float> out, int64_t first = 0);

// Whether `bytes`, whole elements of a tensor, hold a NaN or an infinity. Of types that are no weights: never.
bool has_nonfinite(StoredDType dtype, std::span<const std::byte> bytes);

// How errors name a tensor: as a JSON string, so that control characters are escaped, of at most 200 bytes.
std::string quote_name(std::string_view name);
// "[2, 3]".
std::string describe_shape(std::span<const int64_t> shape);

}  // namespace idefics
