// IDEFICS_CHECK: an invariant of our own. Always on; never reachable from input (that is what Error is for).
#pragma once

namespace idefics {

// Prints the condition with its place on stderr and aborts.
[[noreturn]] void check_failed(const char* condition, const char* file, int line);

}  // namespace idefics

#define IDEFICS_CHECK(condition) \
  ((condition) ? static_cast<void>(0) : ::idefics::check_failed(#condition, __FILE__, __LINE__))
