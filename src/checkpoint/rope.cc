#include "checkpoint/rope.h"

#include <cmath>
#include <numbers>

#include "base/check.h"

namespace idefics {

namespace {

float scale_llama3(float inv, const Llama3RopeScalingParams& p) {
  const auto factor = static_cast<float>(p.factor), low = static_cast<float>(p.low_freq_factor);
  const auto high = static_cast<float>(p.high_freq_factor), old = static_cast<float>(p.orig_max_position);
  const float wavelength = 2.0f * std::numbers::pi_v<float> / inv;
  if (wavelength > old / low) return inv / factor;
  if (wavelength < old / high) return inv;
  const float t = (old / wavelength - low) / (high - low);
  return (1.0f - t) * inv / factor + t * inv;
}

}  // namespace

std::vector<float> rope_inv_freq(const Llama3Config& config) {
  IDEFICS_CHECK(config.head_dim > 0 && config.head_dim % 2 == 0);
  const auto theta = static_cast<double>(static_cast<float>(config.rope_theta));
  std::vector<float> inv(static_cast<size_t>(config.head_dim / 2));
  for (size_t j = 0; j < inv.size(); ++j) {
    const float exponent = static_cast<float>(2 * j) / static_cast<float>(config.head_dim);
    inv[j] = 1.0f / static_cast<float>(std::pow(theta, double{exponent}));
    if (config.rope_scaling_params) inv[j] = scale_llama3(inv[j], *config.rope_scaling_params);
  }
  return inv;
}

void rope_rows(std::span<const float> inv_freq, std::span<const int32_t> positions, std::span<float> cos,
               std::span<float> sin) {
  IDEFICS_CHECK(cos.size() == positions.size() * inv_freq.size() && sin.size() == cos.size());
  size_t at = 0;
  for (const int32_t position : positions) {
    for (const float frequency : inv_freq) {
      // The product is rounded to float32 first; double only spares us a libm whose float functions differ.
      const double angle = static_cast<float>(position) * frequency;
      cos[at] = static_cast<float>(std::cos(angle));
      sin[at++] = static_cast<float>(std::sin(angle));
    }
  }
}

}  // namespace idefics
