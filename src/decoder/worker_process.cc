#include "decoder/worker_process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>

namespace idefics::decoder {

namespace {

constexpr int kStartMs = 30'000;  // a machine may be busy
// Memory beyond this is given back behind a picture. Below it pages stay: to touch a new one costs more than to copy
// it.
constexpr uint64_t kKeptBytes = uint64_t{32} << 20;

[[noreturn]] void fail(const char* what, int error) {
  throw Error(ErrorCode::kIo, fmt::format("decoding process: {}: {}", what, std::strerror(error)));
}

Descriptor checked(int fd, const char* what) {
  if (fd < 0) fail(what, errno);
  return Descriptor(fd);
}

// Memory that nobody can make smaller: reading it can never fail for that.
Descriptor shared_memory(size_t bytes) {
  Descriptor memory = checked(::memfd_create("idefics-picture", MFD_CLOEXEC | MFD_ALLOW_SEALING), "memfd_create");
  if (::ftruncate(memory.get(), static_cast<off_t>(bytes)) != 0) fail("ftruncate", errno);
  if (::fcntl(memory.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) fail("F_ADD_SEALS", errno);
  return memory;
}

// The same file under a number that none of the process's own descriptors has.
Descriptor high(const Descriptor& fd) { return checked(::fcntl(fd.get(), F_DUPFD_CLOEXEC, 16), "F_DUPFD_CLOEXEC"); }

// Nothing of the server's environment, which holds keys, but what finds libraries and steers sanitizers.
std::vector<char*> poor_environment() {
  std::vector<char*> kept;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    for (const std::string_view name : {"LD_LIBRARY_PATH=", "ASAN_OPTIONS=", "UBSAN_OPTIONS=", "TSAN_OPTIONS="}) {
      if (std::string_view(*entry).starts_with(name)) kept.push_back(*entry);
    }
  }
  kept.push_back(nullptr);
  return kept;
}

pid_t spawn(const std::vector<std::string>& command, int socket, int input, int output) {
  posix_spawn_file_actions_t files;
  ::posix_spawn_file_actions_init(&files);
  for (const int fd : {0, 1, 2}) ::posix_spawn_file_actions_addopen(&files, fd, "/dev/null", O_RDWR, 0);
  ::posix_spawn_file_actions_adddup2(&files, socket, kSocketFd);
  ::posix_spawn_file_actions_adddup2(&files, input, kInputFd);
  ::posix_spawn_file_actions_adddup2(&files, output, kOutputFd);
  ::posix_spawn_file_actions_addclosefrom_np(&files, kOutputFd + 1);

  posix_spawnattr_t attributes;
  ::posix_spawnattr_init(&attributes);
  sigset_t none, all;
  ::sigemptyset(&none);
  ::sigfillset(&all);
  ::posix_spawnattr_setsigmask(&attributes, &none);
  ::posix_spawnattr_setsigdefault(&attributes, &all);
  // A session of its own: no terminal, and none of its signals.
  ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSID);

  std::vector<std::string> words = command;
  words.front() = "idefics";
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  std::vector<char*> environment = poor_environment();
  pid_t pid = -1;
  const int error =
      ::posix_spawn(&pid, command.front().c_str(), &files, &attributes, arguments.data(), environment.data());
  ::posix_spawn_file_actions_destroy(&files);
  ::posix_spawnattr_destroy(&attributes);
  if (error != 0) fail("it cannot be started", error);
  return pid;
}

}  // namespace

Descriptor& Descriptor::operator=(Descriptor&& other) noexcept {
  std::swap(fd_, other.fd_);
  return *this;
}
Descriptor::~Descriptor() {
  if (fd_ >= 0) ::close(fd_);
}

WorkerProcess::WorkerProcess(const std::vector<std::string>& command)
    : input_(shared_memory(kInputBytes)), output_(shared_memory(kOutputBytes)) {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) fail("socketpair", errno);
  socket_ = Descriptor(ends[0]);
  {
    const Descriptor other(ends[1]);
    pid_ = spawn(command, high(other).get(), high(input_).get(), high(output_).get());
  }
  Ready ready{};
  if (!readable(kStartMs) || ::recv(socket_.get(), &ready, sizeof ready, 0) != static_cast<ssize_t>(sizeof ready)) {
    const End how = end();
    const std::string message = fmt::format("decoding process: it ended before it was ready, by {}", how.how);
    if (how.by_others) throw KilledAtStart(ErrorCode::kIo, message);
    throw Error(ErrorCode::kIo, message);
  }
  sandbox_ = {.seccomp = ready.seccomp != 0, .landlock = ready.landlock != 0};
}

WorkerProcess::~WorkerProcess() { end(); }

bool WorkerProcess::post(std::span<const std::byte> file, int cpu_seconds) {
  if (readable(0)) return false;  // it hung up, or speaks without being asked
  for (size_t done = 0; done < file.size();) {
    const ssize_t n = ::pwrite(input_.get(), file.data() + done, file.size() - done, static_cast<off_t>(done));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) throw Error(ErrorCode::kOutOfMemory, "image: there is no memory to decode it");
    done += static_cast<size_t>(n);
  }
  limit_cpu(cpu_seconds);
  const Job job{file.size()};
  return ::send(socket_.get(), &job, sizeof job, MSG_NOSIGNAL) == static_cast<ssize_t>(sizeof job);
}

std::optional<Reply> WorkerProcess::wait(int wall_ms) {
  Reply reply;
  timed_out_ = !readable(wall_ms);
  if (timed_out_) return std::nullopt;
  if (::recv(socket_.get(), &reply, sizeof reply, 0) != static_cast<ssize_t>(sizeof reply)) return std::nullopt;
  return reply;
}

bool WorkerProcess::read_pixels(std::span<uint8_t> pixels) {
  // read() takes holes for zeros; a mapping would have to make pages for them.
  for (size_t done = 0; done < pixels.size();) {
    const ssize_t n = ::pread(output_.get(), pixels.data() + done, pixels.size() - done, static_cast<off_t>(done));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    done += static_cast<size_t>(n);
  }
  if (pixels.size() > kKeptBytes) {
    ::fallocate(output_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(kKeptBytes),
                static_cast<off_t>(kOutputBytes - kKeptBytes));
  }
  return true;
}

WorkerProcess::End WorkerProcess::end() {
  if (pid_ < 0) return {};
  int status = 0;
  pid_t gone;
  ::kill(pid_, SIGKILL);  // changes nothing for one that is about to end by itself
  do gone = ::waitpid(pid_, &status, 0);
  while (gone < 0 && errno == EINTR);
  pid_ = -1;
  if (timed_out_) return {"its time was over", false};
  if (gone > 0 && WIFSIGNALED(status)) return {fmt::format("signal {}", WTERMSIG(status)), WTERMSIG(status) == SIGKILL};
  if (gone > 0 && WIFEXITED(status)) return {fmt::format("exit {}", WEXITSTATUS(status)), false};
  return {"something unknown", false};
}

bool WorkerProcess::readable(int wall_ms) const {
  using Clock = std::chrono::steady_clock;
  const auto deadline = Clock::now() + std::chrono::milliseconds(wall_ms);
  for (;;) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
    pollfd wanted = {.fd = socket_.get(), .events = POLLIN, .revents = 0};
    const int n = ::poll(&wanted, 1, static_cast<int>(std::max<int64_t>(0, left)));
    if (n >= 0 || errno != EINTR) return n > 0;
  }
}

void WorkerProcess::limit_cpu(int seconds) const {
  clockid_t clock;
  timespec used{};
  struct rlimit limit {};
  if (::clock_getcpuclockid(pid_, &clock) != 0 || ::clock_gettime(clock, &used) != 0) return;
  if (::prlimit(pid_, RLIMIT_CPU, nullptr, &limit) != 0) return;
  limit.rlim_cur = std::min<rlim_t>(limit.rlim_max, static_cast<rlim_t>(used.tv_sec + 1 + seconds));
  ::prlimit(pid_, RLIMIT_CPU, &limit, nullptr);
}

}  // namespace idefics::decoder
