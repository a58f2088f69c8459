#include "tensor/buffer.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <utility>

#include "idefics/error.h"

namespace idefics {

namespace {

constexpr size_t kHuge = size_t{2} << 20;
constexpr size_t kPage = 4096;

}  // namespace

Buffer::Buffer(size_t bytes, const char* what) : size_(bytes) {
  if (bytes == 0) return;
  // Large ones: map 2 MiB more than wanted and cut off what lies before the first aligned address and behind the end.
  const bool huge = bytes >= kHuge;
  const size_t rounded = (bytes + kPage - 1) / kPage * kPage;
  const size_t asked = rounded + (huge ? kHuge : 0);
  void* raw = bytes > (SIZE_MAX >> 2)
                  ? MAP_FAILED
                  : ::mmap(nullptr, asked, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (raw == MAP_FAILED) {
    throw Error(ErrorCode::kOutOfMemory, fmt::format("memory: no {} bytes for {}", bytes, what));
  }
  auto* start = static_cast<std::byte*>(raw);
  if (huge) {
    const size_t before = (kHuge - reinterpret_cast<uintptr_t>(raw) % kHuge) % kHuge;
    if (before != 0) ::munmap(start, before);
    start += before;
    const size_t behind = asked - before - rounded;
    if (behind != 0) ::munmap(start + rounded, behind);
    ::madvise(start, rounded, MADV_HUGEPAGE);
  }
  data_ = start;
  mapped_ = rounded;
}

Buffer::Buffer(Buffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      mapped_(std::exchange(other.mapped_, 0)) {}

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(mapped_, other.mapped_);
  return *this;
}

Buffer::~Buffer() {
  if (data_ != nullptr) ::munmap(data_, mapped_);
}

}  // namespace idefics
