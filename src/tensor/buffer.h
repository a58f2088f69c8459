// Memory that is allocated once: weights, caches, arenas.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace idefics {

// Owns zeroed bytes, aligned to 2 MiB and backed by huge pages where the system gives them (a first touch of a 4 KiB
// page costs about 15 us on virtual machines). Untouched parts take no physical memory. Moves, does not copy. Throws
// Error{kOutOfMemory} naming `what` and the size.
class Buffer {
 public:
  Buffer() = default;
  Buffer(size_t bytes, const char* what);
  Buffer(Buffer&& other) noexcept;
  Buffer& operator=(Buffer&& other) noexcept;
  ~Buffer();

  size_t size() const { return size_; }
  std::byte* data() { return data_; }
  const std::byte* data() const { return data_; }
  template <typename T>
  std::span<T> as() {
    return {reinterpret_cast<T*>(data_), size_ / sizeof(T)};
  }
  template <typename T>
  std::span<const T> as() const {
    return {reinterpret_cast<const T*>(data_), size_ / sizeof(T)};
  }

 private:
  std::byte* data_ = nullptr;
  size_t size_ = 0;
  size_t mapped_ = 0;  // bytes of the mapping that starts at data_
};

}  // namespace idefics
