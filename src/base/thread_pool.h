// The one compute pool: a fixed team that runs short parallel regions.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

namespace idefics {

// Runs `body(begin, end)` over ranges of [0, count) on all threads of the team, the caller's included, and returns when
// all are done. Each thread has a share of its own, which it walks through in order, in blocks of `grain`, so that what
// it reads lies together; when it is done it takes blocks from the end of another's share. So which thread computes
// what varies; results must not depend on it.
//
//   ThreadPool pool(2);
//   pool.parallel_for(rows, 4, [&](int64_t begin, int64_t end) { ... });
//
// Workers spin for some microseconds, then sleep on a futex: an empty region costs less than a microsecond while work
// keeps coming. Threads: one caller at a time (the owner of the pool). `body` must not throw and not call the pool.
class ThreadPool {
 public:
  explicit ThreadPool(int num_threads);  // 1 or more; 1 starts no thread at all
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const { return static_cast<int>(workers_.size()) + 1; }

  template <typename Body>
  void parallel_for(int64_t count, int64_t grain, Body&& body) {
    run(
        count, grain,
        [](void* context, int64_t begin, int64_t end) noexcept {
          (*static_cast<std::remove_reference_t<Body>*>(context))(begin, end);
        },
        const_cast<void*>(static_cast<const void*>(std::addressof(body))));
  }

  // Names `count` pieces of `bytes` bytes, side by side, that a region over `count` pieces will read soon. During the
  // regions from here on, until others are named, a thread that waits brings the first of those pieces of which its own
  // share will consist into its cache: where reading memory is all there is to do, waiting would be lost time.
  void expect(const void* data, int64_t count, int64_t bytes) { expected_ = {data, count, bytes}; }

 private:
  struct Expected {
    const void* data = nullptr;
    int64_t count = 0, bytes = 0;
  };
  class Fetcher;
  using Call = void (*)(void* context, int64_t begin, int64_t end) noexcept;
  struct Region {
    Call call = nullptr;
    void* context = nullptr;
    int64_t count = 0, grain = 1;
    Expected expected;
  };

  // The blocks of a thread that nobody has taken: the first in the upper half of the word, the end in the lower one.
  struct alignas(64) Share {
    std::atomic<uint64_t> blocks{0};
  };

  void run(int64_t count, int64_t grain, Call call, void* context);
  void deal(int64_t num_blocks);
  void work(size_t self);
  void worker(size_t self);

  Expected expected_;
  Region region_;
  std::vector<Share> shares_;                    // of the caller, then of the workers
  std::unique_ptr<Fetcher> fetcher_;             // of the caller
  alignas(64) std::atomic<uint32_t> epoch_{0};   // counts regions; workers wait for it to change
  alignas(64) std::atomic<int32_t> running_{0};  // workers that have not finished the region
  std::atomic<bool> stop_{false};
  std::vector<std::thread> workers_;
};

// The number of CPUs this process may run on (its affinity mask), at least 1.
int num_available_cpus();

}  // namespace idefics
