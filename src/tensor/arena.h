// Scratch memory of the forward passes: taken in order, given back all at once.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tensor/buffer.h"
#include "tensor/view.h"

namespace idefics {

// A stack of named buffers in one allocation. The sizes are found by taking the same buffers from a measuring arena
// first (one without memory), so a forward pass cannot ask for more than was planned.
//
//   Arena measure;                        // counts only
//   TextScratch::take(measure, config, 512);
//   Arena arena(measure.peak(), "scratch");
//
// Threads: one owner.
class Arena {
 public:
  Arena() = default;  // a measuring arena: take() returns addresses that must not be used
  Arena(size_t bytes, const char* what) : memory_(bytes, what) {}

  // `bytes` bytes, aligned to 64. Running out is a fault of the plan, not of the input.
  void* take(size_t bytes);
  Matrix<float> take_matrix(int64_t rows, int64_t cols);
  // The left operand of a product with a matrix of this format.
  Activation take_activation(Format format, int64_t rows, int64_t cols);
  template <typename T>
  T* take_array(int64_t count) {
    return static_cast<T*>(take(static_cast<size_t>(count) * sizeof(T)));
  }

  size_t used() const { return used_; }
  size_t peak() const { return peak_; }
  size_t capacity() const { return memory_.size(); }

 private:
  friend class ArenaScope;
  Buffer memory_;
  size_t used_ = 0, peak_ = 0;
};

// Everything taken while it lives is given back at its end.
class ArenaScope {
 public:
  explicit ArenaScope(Arena& arena) : arena_(arena), mark_(arena.used_) {}
  ArenaScope(const ArenaScope&) = delete;
  ArenaScope& operator=(const ArenaScope&) = delete;
  ~ArenaScope() { arena_.used_ = mark_; }

 private:
  Arena& arena_;
  size_t mark_;
};

}  // namespace idefics
