#include "decoder/worker.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>

#include "decoder/protocol.h"
#include "decoder/sandbox.h"

namespace idefics::decoder {

namespace {

void* map(int fd, size_t bytes, int protection) {
  void* memory = ::mmap(nullptr, bytes, protection, MAP_SHARED, fd, 0);
  ::close(fd);
  return memory == MAP_FAILED ? nullptr : memory;
}

Reply refusal(Reply::Status status, std::string_view message) {
  Reply reply{};
  reply.status = status;
  reply.message_bytes = static_cast<uint32_t>(std::min(message.size(), sizeof reply.message));
  std::copy_n(message.data(), reply.message_bytes, reply.message);
  return reply;
}

Reply answer(const Decode& decode, std::span<const std::byte> file, std::byte* out) {
  try {
    const Image image = decode(file, kLimits);
    if (image.rgb.size() > kOutputBytes) return refusal(Reply::kTooLarge, "image: the picture has too many pixels");
    std::memcpy(out, image.rgb.data(), image.rgb.size());
    return {.status = Reply::kDecoded, .width = image.width, .height = image.height, .message_bytes = 0, .message = {}};
  } catch (const Error& e) {
    return refusal(e.code() == ErrorCode::kImageTooLarge ? Reply::kTooLarge : Reply::kInvalid, e.what());
  } catch (const std::bad_alloc&) {
    return refusal(Reply::kTooLarge, "image: decoding it takes too much memory; send a smaller one");
  }
}

template <class Message>
bool send(const Message& message) {
  return ::write(kSocketFd, &message, sizeof message) == static_cast<ssize_t>(sizeof message);
}

// False when the other side hung up.
bool receive(Job& job) {
  ssize_t got;
  do got = ::read(kSocketFd, &job, sizeof job);
  while (got < 0 && errno == EINTR);
  return got == static_cast<ssize_t>(sizeof job) && job.bytes <= kInputBytes;
}

}  // namespace

int run_worker(const Decode& decode) noexcept {
  // The end comes from the server, which may still want pictures while signals tell its whole group to stop.
  for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGPIPE}) ::signal(number, SIG_IGN);
  const auto* in = static_cast<const std::byte*>(map(kInputFd, kInputBytes, PROT_READ));
  auto* out = static_cast<std::byte*>(map(kOutputFd, kOutputBytes, PROT_READ | PROT_WRITE));
  if (in == nullptr || out == nullptr) return 2;
  try {
    const Sandbox sandbox = enter_sandbox();
    if (!send(Ready{sandbox.seccomp, sandbox.landlock})) return 2;
  } catch (const Error&) {
    return 1;
  }
  Job job;
  while (receive(job)) {
    if (!send(answer(decode, {in, job.bytes}, out))) break;
  }
  return 0;
}

}  // namespace idefics::decoder
