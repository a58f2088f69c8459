// One decoding process, from the server's side.
#pragma once

#include <sys/types.h>

#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "decoder/protocol.h"
#include "decoder/sandbox.h"
#include "idefics/error.h"

namespace idefics::decoder {

class Descriptor {
 public:
  explicit Descriptor(int fd = -1) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept;
  ~Descriptor();
  int get() const { return fd_; }

 private:
  int fd_;
};

// Somebody killed a process before it was ready, which says nothing about the next one.
struct KilledAtStart : Error {
  using Error::Error;
};

// Threads: one at a time.
class WorkerProcess {
 public:
  // Starts a process that runs `command` and waits until it is in its sandbox. Errors: kIo; KilledAtStart is one
  // of them.
  explicit WorkerProcess(const std::vector<std::string>& command);
  ~WorkerProcess();  // kills it
  WorkerProcess(const WorkerProcess&) = delete;
  WorkerProcess& operator=(const WorkerProcess&) = delete;

  Sandbox sandbox() const { return sandbox_; }
  // Hands a file over. False when the process is dead or out of step: then it is of no use any more.
  // Error: kOutOfMemory.
  bool post(std::span<const std::byte> file, int cpu_seconds);
  // Its answer; nothing when it died or said nothing within the time: then it is of no use any more.
  std::optional<Reply> wait(int wall_ms);
  // What it says the pixels are. False when there are not so many.
  bool read_pixels(std::span<uint8_t> pixels);
  struct End {
    std::string how = "nothing";  // "signal 11", "its time was over"
    bool by_others = false;       // somebody killed it, the kernel for want of memory or a person
  };
  // Kills it, if it lives.
  End end();

 private:
  bool readable(int wall_ms) const;
  void limit_cpu(int seconds) const;

  pid_t pid_ = -1;
  Descriptor socket_, input_, output_;
  Sandbox sandbox_{};
  bool timed_out_ = false;
};

}  // namespace idefics::decoder
