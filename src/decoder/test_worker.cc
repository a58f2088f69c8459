// A decoding process in which a codec is taken over: what the file says to do is done. Only tests start it.
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string>

#include "decoder/protocol.h"
#include "decoder/worker.h"

namespace idefics::decoder {
namespace {

void say(const Reply& reply) { static_cast<void>(::write(kSocketFd, &reply, sizeof reply)); }

int recurse(int depth) {
  volatile int here[1024];
  here[0] = depth;
  return depth == 0 ? 0 : recurse(here[0] - 1) + here[0];
}

void misbehave(const std::string& order) {
  volatile int never = 0;
  if (order == "crash")
    *static_cast<volatile int*>(::mmap(nullptr, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) = 1;
  if (order == "abort") std::abort();
  if (order == "exit") ::_exit(0);
  if (order == "spin") {
    while (never == 0) {
    }
  }
  if (order == "sleep") ::read(0, nullptr, 0), ::syscall(SYS_futex, &never, 0, 0, nullptr, nullptr, 0);
  if (order == "deep") recurse(1 << 30);
  if (order == "memory") {
    for (;;) std::memset(new char[size_t{64} << 20], 1, size_t{64} << 20);
  }
  const auto attempt = [&](const char* name, auto call) {
    if (order != name) return;
    errno = 0;
    const long result = call();
    throw Error(ErrorCode::kImageInvalid,
                "image: " + (result < 0 ? "refused, errno " + std::to_string(errno) : std::string("done")));
  };
  attempt("open", [] { return ::open("/etc/passwd", O_RDONLY); });
  attempt("write", [] { return ::open("/tmp/idefics-escape", O_WRONLY | O_CREAT, 0600); });
  attempt("proc", [] { return ::open("/proc/self/environ", O_RDONLY); });
  attempt("unlink", [] { return ::unlink("/tmp/idefics-escape"); });
  attempt("stat", [] {
    struct stat info;
    return ::stat("/etc/passwd", &info);
  });
  attempt("socket", [] { return ::socket(AF_INET, SOCK_STREAM, 0); });
  attempt("connect", [] {
    sockaddr_in where{};
    where.sin_family = AF_INET;
    return ::connect(kSocketFd, reinterpret_cast<sockaddr*>(&where), sizeof where);
  });
  attempt("fork", [] { return ::fork(); });
  attempt("exec", [] { return ::execl("/bin/true", "true", nullptr); });
  attempt("kill", [] { return ::kill(::getppid(), 0); });
  attempt("tgkill", [] { return ::syscall(SYS_tgkill, 1, 1, 0); });
  attempt("ptrace", [] { return ::syscall(SYS_ptrace, 16, ::getpid(), 0, 0); });
  attempt("code", [] {
    const void* page = ::mmap(nullptr, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return page == MAP_FAILED ? -1 : 0;
  });
  attempt("limits", [] { return ::syscall(SYS_prlimit64, 0, 0, nullptr, nullptr); });
  attempt("shrink", [] { return ::ftruncate(kOutputFd, 0); });
  if (order == "text") throw Error(ErrorCode::kImageInvalid, std::string(10'000, '\n'));
  // Lies to the server.
  Reply reply{};
  if (order == "huge")
    reply = {.status = Reply::kDecoded, .width = 65'500, .height = 65'500, .message_bytes = 0, .message = {}};
  if (order == "negative")
    reply = {.status = Reply::kDecoded, .width = -1, .height = -1, .message_bytes = 0, .message = {}};
  if (order == "empty") reply = {.status = Reply::kDecoded, .width = 0, .height = 0, .message_bytes = 0, .message = {}};
  if (order == "status") reply.status = 77;
  if (order == "message") {
    reply.status = Reply::kInvalid;
    reply.message_bytes = 1'000'000;
    std::memset(reply.message, '\n', sizeof reply.message);
  }
  if (reply.status != 0 || reply.width != 0 || order == "empty") {
    say(reply);
    ::_exit(0);
  }
  if (order == "short") {
    static_cast<void>(::write(kSocketFd, &reply, 4));
    ::_exit(0);
  }
}

Image decode_or_misbehave(std::span<const std::byte> file, const ImageLimits& limits) {
  constexpr std::string_view kOrder = "order:";
  const std::string_view text(reinterpret_cast<const char*>(file.data()), file.size());
  if (text.starts_with(kOrder)) misbehave(std::string(text.substr(kOrder.size())));
  return decode_image(file, limits);
}

}  // namespace
}  // namespace idefics::decoder

int main() { return idefics::decoder::run_worker(idefics::decoder::decode_or_misbehave); }
