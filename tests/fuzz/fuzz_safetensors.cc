// Any bytes as a safetensors file: refused with an Error, or a table whose tensors lie within the bytes and fill them.
#include <algorithm>
#include <cstdint>
#include <vector>

#include "base/check.h"
#include "checkpoint/safetensors.h"
#include "idefics/error.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace idefics;
  const std::span file(reinterpret_cast<const std::byte*>(data), size);
  try {
    const SafetensorsHeader header = parse_safetensors(file, "fuzz");
    size_t total = 0;
    for (const TensorInfo& tensor : header.tensors) {
      total += tensor.bytes.size();
      IDEFICS_CHECK(tensor.bytes.empty() || (tensor.bytes.data() >= file.data() &&
                                             tensor.bytes.data() + tensor.bytes.size() <= file.data() + size));
      if (!is_weight_dtype(tensor.dtype)) continue;
      std::vector<float> values(static_cast<size_t>(tensor.num_elements()));
      read_as_f32(tensor, values);
    }
    IDEFICS_CHECK(total + 8 <= size);
  } catch (const Error&) {
  }
  return 0;
}
