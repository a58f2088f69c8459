#include "base/files.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/check.h"

namespace idefics {

namespace {

class FileDescriptor {
 public:
  explicit FileDescriptor(int fd) : fd_(fd) {}
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;
  ~FileDescriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }

 private:
  int fd_;
};

[[noreturn]] void fail(const std::filesystem::path& path, std::string_view what, ErrorCode code) {
  throw Error(code, fmt::format("{}: {}", path.string(), what));
}

[[noreturn]] void fail_errno(const std::filesystem::path& path, std::string_view doing, ErrorCode code) {
  fail(path, fmt::format("cannot {}: {}", doing, std::strerror(errno)), code);
}

// Opens a regular file. O_NONBLOCK: a FIFO without a writer must not block the open.
int open_regular(const std::filesystem::path& path, struct stat& info, ErrorCode code) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (fd < 0) fail_errno(path, "open", code);
  if (::fstat(fd, &info) != 0) {
    ::close(fd);
    fail_errno(path, "read", code);
  }
  if (!S_ISREG(info.st_mode)) {
    ::close(fd);
    fail(path, S_ISDIR(info.st_mode) ? "is a folder, wanted a file" : "is not a regular file", code);
  }
  return fd;
}

// Reads to the end of `fd`, at most `max_bytes`.
std::string read_all(int fd, const std::filesystem::path& name, uint64_t max_bytes, uint64_t expected, ErrorCode code) {
  std::string bytes;
  bytes.reserve(expected);
  char block[1 << 16];
  for (;;) {
    const ssize_t n = ::read(fd, block, sizeof block);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail_errno(name, "read", code);
    if (n == 0) return bytes;
    if (bytes.size() + static_cast<size_t>(n) > max_bytes) {
      fail(name, fmt::format("is larger than the limit of {} bytes", max_bytes), code);
    }
    bytes.append(block, static_cast<size_t>(n));
  }
}

}  // namespace

std::string read_file(const std::filesystem::path& path, uint64_t max_bytes, ErrorCode code) {
  struct stat info {};
  const FileDescriptor fd(open_regular(path, info, code));
  const auto size = static_cast<uint64_t>(info.st_size);
  if (size > max_bytes) {
    fail(path, fmt::format("has {} bytes, more than the limit of {}", size, max_bytes), code);
  }
  return read_all(fd.get(), path, max_bytes, size, code);
}

std::optional<std::string> find_file(const std::filesystem::path& path, uint64_t max_bytes, ErrorCode code) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0 && (errno == ENOENT || errno == ENOTDIR)) return std::nullopt;
  return read_file(path, max_bytes, code);
}

std::string read_stdin(uint64_t max_bytes) {
  return read_all(STDIN_FILENO, "standard input", max_bytes, 0, ErrorCode::kIo);
}

void write_file(const std::filesystem::path& path, std::string_view bytes) {
  const std::filesystem::path part = path.string() + ".part" + std::to_string(::getpid());
  {
    const FileDescriptor fd(::open(part.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
    if (fd.get() < 0) fail_errno(path, "write", ErrorCode::kIo);
    bool good = true;
    while (good && !bytes.empty()) {
      const ssize_t n = ::write(fd.get(), bytes.data(), bytes.size());
      if (n < 0 && errno == EINTR) continue;
      good = n > 0;
      if (good) bytes.remove_prefix(static_cast<size_t>(n));
    }
    if (!good || ::fsync(fd.get()) != 0) {
      const int saved = errno;
      ::unlink(part.c_str());
      errno = saved;
      fail_errno(path, "write", ErrorCode::kIo);
    }
  }
  if (::rename(part.c_str(), path.c_str()) != 0) {
    const int saved = errno;
    ::unlink(part.c_str());
    errno = saved;
    fail_errno(path, "write", ErrorCode::kIo);
  }
}

MappedFile::MappedFile(const std::filesystem::path& path, ErrorCode code) {
  struct stat info {};
  const FileDescriptor fd(open_regular(path, info, code));
  size_ = static_cast<size_t>(info.st_size);
  if (size_ == 0) return;
  void* data = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, fd.get(), 0);
  if (data == MAP_FAILED) fail_errno(path, "map", errno == ENOMEM ? ErrorCode::kOutOfMemory : code);
  data_ = static_cast<const std::byte*>(data);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

void MappedFile::fetch(std::span<const std::byte> part) const {
#if defined(MADV_POPULATE_READ)  // Linux 5.14
  advise(part, static_cast<size_t>(::sysconf(_SC_PAGESIZE)), MADV_POPULATE_READ);
#else
  advise(part, static_cast<size_t>(::sysconf(_SC_PAGESIZE)), MADV_WILLNEED);
#endif
}

// Of a private map that nobody writes to, MADV_DONTNEED drops nothing but page table entries. The kernel maps more than
// what was touched, 64 KiB or a whole huge page of the page cache, so parts that were released before may have come
// back: all that can have been mapped is dropped. (With 64 KiB, 50 MiB of a 490 MiB file were left in the end.)
void MappedFile::release(std::span<const std::byte> part) const { advise(part, size_t{2} << 20, MADV_DONTNEED); }

void MappedFile::advise(std::span<const std::byte> part, size_t granule, int advice) const {
  if (part.empty()) return;
  IDEFICS_CHECK(part.data() >= data_ && part.data() + part.size() <= data_ + size_);
  const auto start = reinterpret_cast<uintptr_t>(data_), first = reinterpret_cast<uintptr_t>(part.data());
  const uintptr_t begin = std::max(first / granule * granule, start);
  const uintptr_t end = std::min((first + part.size() + granule - 1) / granule * granule, start + size_);
  ::madvise(const_cast<std::byte*>(data_) + (begin - start), end - begin, advice);  // a hint: may fail
}

}  // namespace idefics
