#include "cli/shutdown_signals.h"

#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <ctime>

namespace idefics::cli {

namespace {

sigset_t shutdown_set() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGTERM);
  return set;
}

}  // namespace

ShutdownSignals::ShutdownSignals() {
  const sigset_t set = shutdown_set();
  ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
  thread_ = std::thread([this] { watch(); });
}

ShutdownSignals::~ShutdownSignals() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  thread_.join();
}

void ShutdownSignals::expect_waiter() {
  const std::lock_guard lock(mutex_);
  expected_ = true;
}

bool ShutdownSignals::wait(int timeout_ms) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, std::chrono::milliseconds(timeout_ms), [&] { return requested_; });
}

void ShutdownSignals::watch() {
  const sigset_t set = shutdown_set();
  constexpr timespec kPause{0, 50'000'000};
  for (;;) {
    const int signal = ::sigtimedwait(&set, nullptr, &kPause);
    const std::lock_guard lock(mutex_);
    if (ending_) return;
    if (signal < 0) continue;
    if (requested_) ::_exit(130);
    if (!expected_) ::_exit(0);
    requested_ = true;
    changed_.notify_all();
  }
}

}  // namespace idefics::cli
