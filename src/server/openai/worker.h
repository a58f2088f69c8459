// Threads for what takes too long on those of the connections.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace idefics::openai {

class Worker {
 public:
  Worker(size_t max_waiting, int num_threads);
  ~Worker();  // what waits is dropped

  // False when too much waits already. `job` must not throw.
  bool run(std::function<void()> job);

 private:
  void work();

  const size_t max_waiting_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> jobs_;
  bool ending_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace idefics::openai
