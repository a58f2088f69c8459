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

TEST(ThreadPool, work_left_of_a_slow_thread_is_taken_over) {
  ThreadPool pool(2);
  // The first piece of one share lasts until all pieces of the other share and the rest of its own are done, but for
  // the few that are taken together with it.
  std::atomic<int> done{0};
  pool.parallel_for(64, 1, [&](int64_t begin, int64_t end) {
    while (begin == 0 && done.load() < 64 - (end - begin)) std::this_thread::yield();
    done.fetch_add(static_cast<int>(end - begin));
  });
  EXPECT_EQ(done.load(), 64);
}

TEST(ThreadPool, what_is_expected_changes_nothing) {
  ThreadPool pool(3);
  const std::vector<char> memory(100000, 1);
  std::atomic<int64_t> sum{0};
  for (int round = 0; round < 1000; ++round) {
    if (round % 3 == 0) pool.expect(memory.data(), round % 7, 10000);  // also none, and one for each thread
    if (round % 3 == 1) pool.expect(nullptr, 0, 0);
    pool.parallel_for(8, 1, [&](int64_t begin, int64_t end) { sum.fetch_add(end - begin); });
  }
  EXPECT_EQ(sum.load(), 8000);
}

}  // namespace
}  // namespace idefics
