#include "text/jinja/budget.h"

#include <fmt/format.h>

#include "idefics/error.h"

namespace idefics::jinja {
namespace {

// A look at the clock costs about 25 ns; 64 Ki units are tens of microseconds of work.
constexpr uint64_t kLookEvery = 1u << 16;
// Levels of the interpreter's own recursion per level of calls that a template may make: a call sits inside a few
// statements and expressions.
constexpr int kNestingPerCall = 16;

}  // namespace

void fail(const std::string& message) { throw Error(ErrorCode::kTemplateError, message); }

Budget::Budget(const Limits& limits)
    : limits_(limits), next_look_(kLookEvery), end_(std::chrono::steady_clock::now() + limits.time) {}

void Budget::fail_steps() const { fail(fmt::format("ran for more than {} steps", limits_.steps)); }

void Budget::look_at_clock() {
  next_look_ = work_ + kLookEvery;
  if (std::chrono::steady_clock::now() > end_) fail(fmt::format("ran for more than {} ms", limits_.time.count()));
}

void Budget::take_memory(size_t bytes) {
  expect_memory(bytes);
  memory_ += bytes;
}

void Budget::expect_memory(size_t bytes) const {
  if (bytes > limits_.memory_bytes - memory_) {
    fail(fmt::format("needs more than {} MiB for its values", limits_.memory_bytes >> 20));
  }
}

Nesting::Nesting(Budget& budget) : budget_(budget) {
  if (budget.nesting_ >= budget.limits_.depth * kNestingPerCall) fail("nests too deeply");
  ++budget.nesting_;
}

}  // namespace idefics::jinja
