#include "decoder/decoder_pool.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/large_bytes.h"
#include "decoder/worker_process.h"

namespace idefics::decoder {

namespace {

// One for a picture and one for what comes behind it.
constexpr int kFewest = 2;

// What came back is no answer: the process is not what it was.
struct Liar {};

// The text of an error may have been written by whoever made the picture.
std::string plain_text(const Reply& reply) {
  if (reply.message_bytes > sizeof reply.message) throw Liar();
  std::string text(reply.message, reply.message_bytes);
  std::ranges::replace_if(
      text, [](char c) { return c < ' ' || c > '~'; }, '?');
  return text.starts_with("image: ") ? text : "image: " + text;
}

Image read_picture(WorkerProcess& worker, const Reply& reply) {
  const auto side_fits = [](int32_t side) { return side >= 1 && side <= kLimits.max_side; };
  if (!side_fits(reply.width) || !side_fits(reply.height)) throw Liar();
  const uint64_t pixels = static_cast<uint64_t>(reply.width) * static_cast<uint64_t>(reply.height);
  if (pixels > kLimits.max_pixels) throw Liar();
  Image image{reply.width, reply.height, large_bytes(3 * pixels)};
  if (!worker.read_pixels(image.rgb)) throw Liar();
  return image;
}

Image read_answer(WorkerProcess& worker, const Reply& reply) {
  switch (reply.status) {
    case Reply::kDecoded: return read_picture(worker, reply);
    case Reply::kTooLarge: throw Error(ErrorCode::kImageTooLarge, plain_text(reply));
    case Reply::kInvalid: throw Error(ErrorCode::kImageInvalid, plain_text(reply));
  }
  throw Liar();
}

std::unique_ptr<WorkerProcess> start(const std::vector<std::string>& command) {
  try {
    return std::make_unique<WorkerProcess>(command);
  } catch (const KilledAtStart&) {
    return std::make_unique<WorkerProcess>(command);
  }
}

}  // namespace

DecoderPool::DecoderPool(PoolOptions options, Trouble trouble)
    : options_(std::move(options)), trouble_(std::move(trouble)) {
  keeper_ = std::thread([this] { keep(); });
  try {
    std::unique_ptr<WorkerProcess> first = take();
    sandbox_ = first->sandbox();
    give_back(std::move(first));
  } catch (...) {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
    }
    wanted_.notify_one();
    keeper_.join();
    throw;
  }
}

DecoderPool::~DecoderPool() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wanted_.notify_one();
  keeper_.join();
}

Image DecoderPool::decode(std::span<const std::byte> file) {
  if (file.size() > kInputBytes) {
    throw Error(
        ErrorCode::kImageTooLarge,
        fmt::format("image: {} bytes, more than the limit of {}; send a smaller file", file.size(), kInputBytes));
  }
  try {
    // One that somebody killed says nothing about the picture: it is tried once more.
    if (std::optional<Image> image = try_decode(file, false)) return *std::move(image);
    return *try_decode(file, true);
  } catch (const Error& e) {
    if (e.code() != ErrorCode::kIo) throw;
    if (trouble_) trouble_(e.what());
    throw Error(ErrorCode::kOutOfMemory, "image: no process could be started to decode it; try again later");
  }
}

std::optional<Image> DecoderPool::try_decode(std::span<const std::byte> file, bool last) {
  std::unique_ptr<WorkerProcess> worker = take();
  std::string how = "an answer that is none";
  try {
    while (!worker->post(file, options_.cpu_seconds)) {
      bury(std::move(worker));
      worker = take();
    }
    if (const std::optional<Reply> reply = worker->wait(options_.wall_ms)) {
      Image image = read_answer(*worker, *reply);
      give_back(std::move(worker));
      return image;
    }
    const WorkerProcess::End end = worker->end();
    how = end.how;
    if (end.by_others && !last) {
      bury(std::move(worker));
      return std::nullopt;
    }
  } catch (const Liar&) {
  } catch (...) {
    if (worker) give_back(std::move(worker));
    throw;
  }
  bury(std::move(worker));
  if (trouble_) trouble_(how);
  throw Error(ErrorCode::kImageInvalid,
              "image: decoding it failed or took too long; the file may be damaged, send another one");
}

std::unique_ptr<WorkerProcess> DecoderPool::take() {
  std::unique_lock lock(mutex_);
  if (++waiting_ > std::ssize(idle_)) wanted_.notify_one();
  changed_.wait(lock, [&] { return !idle_.empty() || failure_; });
  --waiting_;
  if (idle_.empty()) {
    const std::exception_ptr failure = waiting_ > 0 ? failure_ : std::exchange(failure_, nullptr);
    std::rethrow_exception(failure);
  }
  std::unique_ptr<WorkerProcess> worker = std::move(idle_.back());
  idle_.pop_back();
  if (idle_.empty()) wanted_.notify_one();
  return worker;
}

void DecoderPool::give_back(std::unique_ptr<WorkerProcess> worker) {
  {
    const std::lock_guard lock(mutex_);
    idle_.push_back(std::move(worker));
  }
  changed_.notify_one();
}

void DecoderPool::bury(std::unique_ptr<WorkerProcess> worker) {
  worker.reset();
  {
    const std::lock_guard lock(mutex_);
    --total_;
  }
  wanted_.notify_one();
}

void DecoderPool::keep() {
  std::unique_lock lock(mutex_);
  bool retry = true;
  for (;;) {
    // One is ready before somebody waits for it; when that fails, it is not tried again until somebody does.
    wanted_.wait(
        lock, [&] { return stop_ || waiting_ > std::ssize(idle_) || ((idle_.empty() || total_ < kFewest) && retry); });
    if (stop_) return;
    lock.unlock();
    std::unique_ptr<WorkerProcess> worker;
    std::exception_ptr failure;
    try {
      worker = start(options_.command);
    } catch (...) {
      failure = std::current_exception();
    }
    lock.lock();
    retry = worker != nullptr;
    if (worker) {
      ++total_;
      idle_.push_back(std::move(worker));
      failure_ = nullptr;
    } else if (waiting_ > 0) {
      failure_ = failure;
    }
    changed_.notify_all();
  }
}

}  // namespace idefics::decoder
