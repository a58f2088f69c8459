#include "base/thread_pool.h"

#include <sched.h>

#include <algorithm>

#include "base/check.h"

namespace idefics {

namespace {

// About 200 us on current CPUs (a pause takes 40 to 140 cycles): longer than any gap between two regions of a step, and
// than what lies between two steps, since waking a thread takes up to 50 us on virtual machines; short enough not to
// take the CPU from others while a caller is busy elsewhere.
constexpr int kSpins = 5000;

inline void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

// The part of `count` things that are a thread's own.
struct Blocks {
  uint64_t first, count;
};
Blocks share_of(uint64_t count, uint64_t thread, uint64_t num_threads) {
  const uint64_t first = count * thread / num_threads;
  return {first, count * (thread + 1) / num_threads - first};
}

// Some of the blocks that are left of a share: a quarter from its beginning for the owner, so that calls are few and
// yet something is left for others, and the last one for other threads. None when all are taken.
Blocks take(std::atomic<uint64_t>& share, bool own) {
  uint64_t left = share.load(std::memory_order_relaxed), next;
  Blocks taken;
  do {
    const uint64_t first = left >> 32, end = left & UINT32_MAX;
    if (first >= end) return {0, 0};
    taken = own ? Blocks{first, (end - first + 3) / 4} : Blocks{end - 1, 1};
    next = own ? (first + taken.count) << 32 | end : first << 32 | (end - 1);
  } while (!share.compare_exchange_weak(left, next, std::memory_order_relaxed));
  return taken;
}

}  // namespace

// Passes the time of one thread: brings what it will read into its L2, some lines at a time, and else pauses.
class ThreadPool::Fetcher {
 public:
  Fetcher(uint64_t thread, uint64_t num_threads) : thread_(thread), num_threads_(num_threads) {}

  void aim(const Expected& expected) {
    if (expected.data == data_) return;
    data_ = expected.data;
    const Blocks own = share_of(static_cast<uint64_t>(expected.count), thread_, num_threads_);
    at_ = static_cast<const char*>(data_) + own.first * static_cast<uint64_t>(expected.bytes);
    left_ = std::min(own.count * static_cast<uint64_t>(expected.bytes), kMostAhead) / kStep;
  }
  void pass_time() {
    if (left_ == 0) return pause();
    for (uint64_t i = 0; i < kStep; i += 64) __builtin_prefetch(at_ + i, 0, 2);
    at_ += kStep;
    --left_;
  }

 private:
  static constexpr uint64_t kMostAhead = 512 << 10;  // leaves three quarters of an L2 of 2 MiB to what is in use
  static constexpr uint64_t kStep = 512;
  uint64_t thread_, num_threads_;
  const void* data_ = nullptr;
  const char* at_ = nullptr;
  uint64_t left_ = 0;  // steps
};

ThreadPool::ThreadPool(int num_threads)
    : shares_(static_cast<size_t>(std::max(num_threads, 1))), fetcher_(std::make_unique<Fetcher>(0, shares_.size())) {
  IDEFICS_CHECK(num_threads >= 1);
  for (size_t i = 1; i < shares_.size(); ++i) workers_.emplace_back([this, i] { worker(i); });
}

ThreadPool::~ThreadPool() {
  stop_.store(true, std::memory_order_relaxed);
  epoch_.fetch_add(1, std::memory_order_release);
  epoch_.notify_all();
  for (std::thread& t : workers_) t.join();
}

void ThreadPool::run(int64_t count, int64_t grain, Call call, void* context) {
  if (count <= 0) return;
  grain = std::max<int64_t>(grain, 1);
  if (workers_.empty() || count <= grain) {
    call(context, 0, count);
    return;
  }
  region_ = {call, context, count, grain, expected_};
  deal((count + grain - 1) / grain);
  running_.store(static_cast<int32_t>(workers_.size()), std::memory_order_relaxed);
  epoch_.fetch_add(1, std::memory_order_release);
  epoch_.notify_all();
  work(0);
  fetcher_->aim(expected_);
  for (int32_t left = running_.load(std::memory_order_acquire), spins = 0; left != 0;
       left = running_.load(std::memory_order_acquire)) {
    if (++spins < kSpins) {
      fetcher_->pass_time();
    } else {
      running_.wait(left, std::memory_order_acquire);
    }
  }
}

void ThreadPool::deal(int64_t num_blocks) {
  IDEFICS_CHECK(num_blocks <= INT32_MAX);
  const auto blocks = static_cast<uint64_t>(num_blocks), threads = uint64_t{shares_.size()};
  for (uint64_t i = 0; i < threads; ++i) {
    const Blocks own = share_of(blocks, i, threads);
    shares_[i].blocks.store(own.first << 32 | (own.first + own.count), std::memory_order_relaxed);
  }
}

void ThreadPool::work(size_t self) {
  for (size_t i = 0; i < shares_.size(); ++i) {
    std::atomic<uint64_t>& share = shares_[(self + i) % shares_.size()].blocks;
    for (Blocks taken = take(share, i == 0); taken.count != 0; taken = take(share, i == 0)) {
      const int64_t begin = static_cast<int64_t>(taken.first) * region_.grain;
      const int64_t end = begin + static_cast<int64_t>(taken.count) * region_.grain;
      region_.call(region_.context, begin, std::min(end, region_.count));
    }
  }
}

void ThreadPool::worker(size_t self) {
  Fetcher fetcher(self, shares_.size());
  uint32_t seen = 0;
  for (;;) {
    for (int spins = 0; epoch_.load(std::memory_order_acquire) == seen; ++spins) {
      if (spins < kSpins) {
        fetcher.pass_time();
      } else {
        epoch_.wait(seen, std::memory_order_acquire);
      }
    }
    ++seen;
    if (stop_.load(std::memory_order_relaxed)) return;
    work(self);
    fetcher.aim(region_.expected);
    if (running_.fetch_sub(1, std::memory_order_acq_rel) == 1) running_.notify_one();
  }
}

int num_available_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
  return std::max(CPU_COUNT(&set), 1);
}

}  // namespace idefics
