#include <fmt/format.h>

#include <algorithm>

#include "base/half.h"
#include "idefics/error.h"
#include "pipeline/model_state.h"

namespace idefics {

std::vector<Tensor> run_vision_model(ModelState& state, std::span<const Tensor> inputs) {
  if (inputs.size() != 1) {
    throw Error(ErrorCode::kInvalidValue,
                fmt::format("vision model: {} inputs, wanted 1 (pixel_values)", inputs.size()));
  }
  const Tensor& pixels = inputs[0];
  const Idefics3Config& config = state.config();
  check_pixel_values(config, pixels);
  const int64_t M = pixels.shape()[0], S = config.image_seq_len(), E = config.text_config.hidden_size;
  const auto size = static_cast<size_t>(3) * static_cast<size_t>(config.vision_config.image_size) *
                    static_cast<size_t>(config.vision_config.image_size);
  Tensor features = Tensor::zeros(TensorDType::kF32, {M * S, E});
  const Exec exec = state.exec(1, 1, 1);
  std::vector<float> widened;
  if (pixels.dtype() == TensorDType::kBf16) widened.resize(size);
  for (int64_t i = 0; i < M; ++i) {
    const size_t first = static_cast<size_t>(i) * size;
    std::span<const float> tile = widened;
    if (pixels.dtype() == TensorDType::kBf16) {
      const auto bits = pixels.as<uint16_t>().subspan(first, size);
      std::transform(bits.begin(), bits.end(), widened.begin(), bf16_to_f32);
    } else {
      tile = pixels.as<float>().subspan(first, size);
    }
    state.network->encode(exec, tile, Matrix<float>(features.as_mutable<float>().data() + i * S * E, S, E));
  }
  return {std::move(features)};
}

}  // namespace idefics
