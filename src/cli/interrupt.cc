#include "cli/interrupt.h"

#include <signal.h>
#include <unistd.h>

namespace idefics::cli {

namespace {

// A signal handler can reach nothing but globals.
volatile sig_atomic_t g_may_wait = 0;
volatile sig_atomic_t g_requested = 0;

void on_interrupt(int) {
  if (g_may_wait == 0 || g_requested != 0) ::_exit(130);
  g_requested = 1;
}

}  // namespace

void install_signal_handlers() {
  struct sigaction action {};
  sigemptyset(&action.sa_mask);
  action.sa_handler = on_interrupt;
  ::sigaction(SIGINT, &action, nullptr);
  action.sa_handler = SIG_IGN;
  ::sigaction(SIGPIPE, &action, nullptr);
}

InterruptScope::InterruptScope() {
  g_requested = 0;
  g_may_wait = 1;
}
InterruptScope::~InterruptScope() { g_may_wait = 0; }
bool InterruptScope::requested() const { return g_requested != 0; }

}  // namespace idefics::cli
