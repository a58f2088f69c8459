// A thread for what takes too long on the threads of the connections.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

namespace idefics::openai {

class Worker {
 public:
  explicit Worker(size_t max_waiting) : max_waiting_(max_waiting), thread_([this] { work(); }) {}
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
  std::thread thread_;
};

}  // namespace idefics::openai
