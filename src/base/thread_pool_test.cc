#include "base/thread_pool.h"

#include <gtest/gtest.h>

#include <chrono>
#include <numeric>

namespace idefics {
namespace {

TEST(ThreadPool, every_index_is_visited_once) {
  for (const int threads : {1, 2, 5}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.num_threads(), threads);
    for (const int64_t count : {0, 1, 2, 7, 64, 1000}) {
      for (const int64_t grain : {1, 3, 64}) {
        std::vector<std::atomic<int>> seen(static_cast<size_t>(count));
        pool.parallel_for(count, grain, [&](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; ++i) seen[static_cast<size_t>(i)].fetch_add(1);
        });
        for (const auto& n : seen) ASSERT_EQ(n.load(), 1);
      }
    }
  }
}

TEST(ThreadPool, regions_follow_each_other_also_after_a_pause) {
  ThreadPool pool(3);
  std::atomic<int64_t> sum{0};
  for (int round = 0; round < 4000; ++round) {
    pool.parallel_for(8, 1, [&](int64_t begin, int64_t end) { sum.fetch_add(end - begin); });
    if (round % 1000 == 0)
      std::this_thread::sleep_for(std::chrono::milliseconds(20));  // long enough for workers to sleep
  }
  EXPECT_EQ(sum.load(), 32000);
}

TEST(ThreadPool, far_more_threads_than_cpus_change_nothing) {
  ThreadPool pool(40);
  std::vector<int64_t> seen(200);  // not atomic: each index belongs to one call
  for (int round = 0; round < 500; ++round) {
    pool.parallel_for(std::ssize(seen), 3, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) ++seen[static_cast<size_t>(i)];
    });
  }
  EXPECT_EQ(seen, std::vector<int64_t>(200, 500));
}

}  // namespace
}  // namespace idefics
