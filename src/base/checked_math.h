// Sizes that come from outside are multiplied and added here, and nowhere else, so that they cannot wrap.
#pragma once

#include <cstdint>
#include <optional>

namespace idefics {

// a * b and a + b, or nothing when the result does not fit.
inline std::optional<uint64_t> checked_mul(uint64_t a, uint64_t b) {
  uint64_t r = 0;
  if (__builtin_mul_overflow(a, b, &r)) return std::nullopt;
  return r;
}
inline std::optional<uint64_t> checked_add(uint64_t a, uint64_t b) {
  uint64_t r = 0;
  if (__builtin_add_overflow(a, b, &r)) return std::nullopt;
  return r;
}

}  // namespace idefics
