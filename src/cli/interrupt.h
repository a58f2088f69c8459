// Ctrl-C.
#pragma once

namespace idefics::cli {

// From here on SIGINT ends the program with 130, and writing to a closed pipe is an error and not a signal.
void install_signal_handlers();

// While it lives, a first SIGINT is only noted; a second one ends the program. Not nested.
class InterruptScope {
 public:
  InterruptScope();
  InterruptScope(const InterruptScope&) = delete;
  InterruptScope& operator=(const InterruptScope&) = delete;
  ~InterruptScope();
  bool requested() const;
};

}  // namespace idefics::cli
