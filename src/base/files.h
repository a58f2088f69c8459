// Reading files: whole ones with a size limit, and memory maps.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>

#include "idefics/error.h"

namespace idefics {

// The bytes of a regular file of at most `max_bytes`. Anything else than a regular file (a device, a FIFO, a folder) is
// refused without opening it for reading. Errors: `code`, naming the path and the reason.
std::string read_file(const std::filesystem::path& path, uint64_t max_bytes, ErrorCode code = ErrorCode::kIo);
// The same, or nothing when there is no such file.
std::optional<std::string> find_file(const std::filesystem::path& path, uint64_t max_bytes,
                                     ErrorCode code = ErrorCode::kIo);
// Standard input to its end, at most `max_bytes`.
std::string read_stdin(uint64_t max_bytes);
// Writes `bytes` to a file of a temporary name in the same folder, syncs it, renames it to `path`. Never a half file.
void write_file(const std::filesystem::path& path, std::string_view bytes);

// A file mapped read-only. Moves, does not copy; unmaps at its end.
class MappedFile {
 public:
  // Error: `code`, but kOutOfMemory when this process may have no more address space.
  explicit MappedFile(const std::filesystem::path& path, ErrorCode code = ErrorCode::kIo);
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();
  std::span<const std::byte> bytes() const { return {data_, size_}; }

  // Hints about a part of bytes(), which read the same before and after. Any thread may give them.
  // fetch: it is about to be read; its pages are mapped by one call instead of one fault each.
  // release: it is not wanted any more; its pages no longer count as memory of this process. What is touched again
  // (neighbours within 2 MiB, too) is mapped again.
  void fetch(std::span<const std::byte> part) const;
  void release(std::span<const std::byte> part) const;

 private:
  void advise(std::span<const std::byte> part, size_t granule, int advice) const;

  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace idefics
