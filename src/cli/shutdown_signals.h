// SIGTERM and Ctrl-C for a program that ends its work before it ends.
#pragma once

#include <condition_variable>
#include <mutex>
#include <thread>

namespace idefics::cli {

// Must be made before any other thread, so that all threads leave the signals to it. The first signal is told to those
// who wait; a second one ends the program at once, with 130.
class ShutdownSignals {
 public:
  ShutdownSignals();
  ShutdownSignals(const ShutdownSignals&) = delete;
  ShutdownSignals& operator=(const ShutdownSignals&) = delete;
  ~ShutdownSignals();

  // Until it is called, the first signal ends the program at once, with 0: there is nothing to finish yet.
  void expect_waiter();
  // Waits for the first signal, at most `timeout_ms`. Whether it came.
  bool wait(int timeout_ms);

 private:
  void watch();

  std::mutex mutex_;
  std::condition_variable changed_;
  bool expected_ = false, requested_ = false, ending_ = false;
  std::thread thread_;
};

}  // namespace idefics::cli
