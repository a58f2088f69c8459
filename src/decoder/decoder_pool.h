// Pictures decoded by processes that can do nothing else.
#pragma once

#include <condition_variable>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "decoder/sandbox.h"
#include "decoder/worker.h"
#include "image/codec.h"

namespace idefics::decoder {

class WorkerProcess;

struct PoolOptions {
  // The program and its arguments; it must call run_worker(). Default: this program again.
  std::vector<std::string> command = {"/proc/self/exe", kWorkerVerb};
  int wall_ms = 10'000;  // for one picture
  int cpu_seconds = 5;   // for one picture; the process itself is stopped when it has used them
};

// Decodes in a process of its own for each call at a time; a process serves many pictures, one after the other, and one
// more than are at work is kept ready, so that nobody waits for the start of one that takes the place of a dead one.
// Whatever a codec does there costs its picture and nothing else. What comes back is checked, not believed. Threads:
// any.
class DecoderPool {
 public:
  // Called, on the thread of a decode(), when a process did not survive its picture, or none could be started: how it
  // ended, or why.
  using Trouble = std::function<void(const std::string& how)>;

  // Starts the first process. Errors: kIo when there can be none.
  explicit DecoderPool(PoolOptions options = {}, Trouble trouble = {});
  ~DecoderPool();  // behind the last decode()

  // As decode_image with the default limits. A process that crashes, hangs or asks for too much makes the picture
  // kImageInvalid. kOutOfMemory: no process could be started.
  Image decode(std::span<const std::byte> file);

  // What the kernel has to lock the processes up.
  Sandbox sandbox() const { return sandbox_; }

 private:
  // Nothing when the process was killed from outside, unless this is the `last` try.
  std::optional<Image> try_decode(std::span<const std::byte> file, bool last);
  void keep();
  std::unique_ptr<WorkerProcess> take();
  void give_back(std::unique_ptr<WorkerProcess> worker);
  void bury(std::unique_ptr<WorkerProcess> worker);

  const PoolOptions options_;
  const Trouble trouble_;
  Sandbox sandbox_{};

  std::mutex mutex_;
  std::condition_variable wanted_, changed_;
  std::vector<std::unique_ptr<WorkerProcess>> idle_;
  int total_ = 0, waiting_ = 0;
  std::exception_ptr failure_;  // of the last start
  bool stop_ = false;
  // Starts the processes: each is to end with the thread that started it.
  std::thread keeper_;
};

}  // namespace idefics::decoder
