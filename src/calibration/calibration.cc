#include "calibration/calibration.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <limits>

#include "base/thread_pool.h"
#include "calibration/peak_loops.h"
#include "tensor/buffer.h"

namespace idefics {

namespace {

constexpr int64_t kPiecesPerThread = 8;  // so that threads end together even when one of them was interrupted

template <typename Try>
double best_seconds(double budget_s, const Try& attempt) {
  constexpr int kLeastTries = 4;
  double best = std::numeric_limits<double>::max(), spent = 0;
  for (int i = 0; i < kLeastTries || spent < budget_s; ++i) {
    const auto start = std::chrono::steady_clock::now();
    attempt();
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    best = std::min(best, seconds);
    spent += seconds;
  }
  return best;
}

std::optional<double> operations_per_second(ThreadPool& pool, const std::optional<PeakLoop>& loop) {
  constexpr int64_t kOperations = 40'000'000;  // of a piece: long beside handing it out, short beside a time slice
  constexpr double kBudget = 0.06;
  if (!loop) return std::nullopt;
  const int64_t rounds = kOperations / loop->operations, pieces = kPiecesPerThread * pool.num_threads();
  const double seconds = best_seconds(kBudget, [&] {
    pool.parallel_for(pieces, 1, [&](int64_t begin, int64_t end) { loop->run((end - begin) * rounds); });
  });
  return static_cast<double>(pieces * rounds * loop->operations) / seconds;
}

// A memory to be read.
class ReadingMatter {
 public:
  explicit ReadingMatter(ThreadPool& pool) : buffer_(kBytes, "calibration") {
    // Pages that were never written are all one and the same page of zeros, which lies in the cache.
    pool.parallel_for(kBytes / kPiece, 1, [&](int64_t begin, int64_t end) {
      std::memset(buffer_.data() + begin * kPiece, 1, static_cast<size_t>((end - begin) * kPiece));
    });
  }

  double bytes_per_second(ThreadPool& pool) const {
    constexpr double kBudget = 0.12;
    std::atomic<uint64_t> total{0};
    const double seconds = best_seconds(kBudget, [&] {
      pool.parallel_for(kBytes / kPiece, 1, [&](int64_t begin, int64_t end) {
        total.fetch_add(sum(begin * kPiece / kWord, end * kPiece / kWord), std::memory_order_relaxed);
      });
    });
    return static_cast<double>(kBytes) / seconds;
  }

 private:
  static constexpr int64_t kBytes = int64_t{512} << 20, kPiece = int64_t{1} << 20, kWord = sizeof(uint64_t);

  uint64_t sum(int64_t begin, int64_t end) const {
    constexpr int64_t kLanes = 8;
    const uint64_t* words = buffer_.as<uint64_t>().data();
    uint64_t lane[kLanes] = {};
    for (int64_t i = begin; i < end; i += kLanes) {
      for (int64_t j = 0; j < kLanes; ++j) lane[j] += words[i + j];
    }
    uint64_t out = 0;
    for (const uint64_t x : lane) out += x;
    return out;
  }

  Buffer buffer_;
};

Peaks measure(ThreadPool& pool, const PeakLoops& loops, const ReadingMatter& matter) {
  return {.f32_flops = operations_per_second(pool, loops.f32),
          .bf16_flops = operations_per_second(pool, loops.bf16),
          .int8_ops = operations_per_second(pool, loops.int8),
          .read_bytes = matter.bytes_per_second(pool)};
}

}  // namespace

Calibration calibrate(const kernels::Table& table, int threads) {
  const PeakLoops loops = peak_loops(table.name);
  ThreadPool alone(1), team(threads);
  const ReadingMatter matter(team);
  Calibration out{.threads = threads, .one = measure(alone, loops, matter)};
  out.all = threads == 1 ? out.one : measure(team, loops, matter);
  return out;
}

}  // namespace idefics
