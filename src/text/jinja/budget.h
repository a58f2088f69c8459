// What one rendering may cost. A template comes with a model and its variables with a request: neither is trusted.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

namespace idefics::jinja {

struct Limits {
  uint64_t steps = 1'000'000;            // evaluated nodes, iterations, calls
  size_t output_bytes = 8u << 20;        // of the rendered text
  int depth = 64;                        // of macros and recursive loops that call one another
  size_t memory_bytes = 48u << 20;       // of all values alive at one time, counted by their size
  std::chrono::milliseconds time{1000};  // wall clock
};

// Fails a rendering: throws Error{kTemplateError}. The rendering adds the name of the template and the line.
[[noreturn]] void fail(const std::string& message);

// The meter of one rendering. Every loop, every call and every produced byte passes here, so that a template of any
// nature ends. Errors: kTemplateError. Threads: one.
class Budget {
 public:
  explicit Budget(const Limits& limits);
  Budget(const Budget&) = delete;
  Budget& operator=(const Budget&) = delete;

  // One node, one iteration or one call.
  void step() {
    if (++steps_ > limits_.steps) fail_steps();
    work(64);
  }
  // Work inside one primitive, about a byte looked at each unit. Looks at the clock now and then.
  void work(size_t units) {
    work_ += units;
    if (work_ >= next_look_) look_at_clock();
  }
  void take_memory(size_t bytes);
  void give_memory(size_t bytes) { memory_ -= bytes; }
  // Fails at once when `bytes` more could not be had, so that nothing of that size is even begun.
  void expect_memory(size_t bytes) const;

  const Limits& limits() const { return limits_; }

 private:
  friend class Nesting;
  [[noreturn]] void fail_steps() const;
  void look_at_clock();

  const Limits limits_;
  uint64_t steps_ = 0, work_ = 0, next_look_ = 0;
  size_t memory_ = 0;
  int nesting_ = 0;
  const std::chrono::steady_clock::time_point end_;
};

// Memory taken from a budget until the charge dies. Without a budget (constants of a parsed template) it counts
// nothing.
class Charge {
 public:
  Charge() = default;
  explicit Charge(Budget* budget) : budget_(budget) {}
  Charge(Charge&& other) noexcept : budget_(other.budget_), bytes_(other.bytes_) { other.bytes_ = 0; }
  Charge& operator=(Charge&& other) noexcept {
    std::swap(budget_, other.budget_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~Charge() {
    if (budget_ != nullptr) budget_->give_memory(bytes_);
  }
  // Raises the charge to `bytes`; never lowers it.
  void grow_to(size_t bytes) {
    if (budget_ == nullptr || bytes <= bytes_) return;
    budget_->take_memory(bytes - bytes_);
    bytes_ = bytes;
  }
  Budget* budget() const { return budget_; }

 private:
  Budget* budget_ = nullptr;
  size_t bytes_ = 0;
};

// One level of recursion of the interpreter itself, for as long as it lives.
class Nesting {
 public:
  explicit Nesting(Budget& budget);
  Nesting(const Nesting&) = delete;
  Nesting& operator=(const Nesting&) = delete;
  ~Nesting() { --budget_.nesting_; }

 private:
  Budget& budget_;
};

}  // namespace idefics::jinja
