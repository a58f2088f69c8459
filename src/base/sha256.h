// SHA-256.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

namespace idefics {

using Sha256Digest = std::array<uint8_t, 32>;

// The digest of pieces, one behind the other.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;

  Sha256& add(std::span<const std::byte> bytes);
  // The bytes of a value without padding, as they lie in memory.
  template <typename T>
  requires std::has_unique_object_representations_v<T> Sha256& add_value(const T& value) {
    return add(std::as_bytes(std::span(&value, 1)));
  }
  Sha256Digest digest();  // once

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// As lower-case hexadecimal digits.
std::string sha256_hex(std::span<const std::byte> bytes);
std::string sha256_hex(std::string_view bytes);

}  // namespace idefics
