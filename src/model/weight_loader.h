// From the tensors of a checkpoint to packed weights.
#pragma once

#include <initializer_list>
#include <set>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "checkpoint/checkpoint.h"
#include "tensor/packed_matrix.h"

namespace idefics {

// Gives out matrices by the names of their tensors; `pack` then fills all of them at once, on all threads. Each byte of
// the checkpoint is read once, looked over for NaN and Inf while it is in the cache, and released, so that the
// process holds little more than the packed weights at any time.
//
//   Arena measure;                                  // how much memory they take
//   load_all(WeightLoader(checkpoint, measure, format));
//   Arena memory(measure.peak(), "weights");
//   WeightLoader loader(checkpoint, memory, format);
//   weights = load_all(loader);                     // the matrices are all zero yet
//   loader.pack(pool);
//
// Letters: n outputs, k inputs. Errors: kBadModel (a tensor is missing or of another shape).
class WeightLoader {
 public:
  WeightLoader(const Checkpoint& checkpoint, Arena& memory, Format format)
      : checkpoint_(checkpoint), memory_(memory), format_(format) {}

  Format format() const { return format_; }
  // The format of the matrices from here on.
  void use(Format format) { format_ = format; }
  // Read at once; zeros when the arena only measures.
  std::vector<float> vector(const std::string& name, std::initializer_list<int64_t> shape);
  PackedMatrix matrix(const std::string& name, int64_t n, int64_t k) { return matrix(name, n, k, format_); }
  // In a format of its own.
  PackedMatrix matrix(const std::string& name, int64_t n, int64_t k, Format format);
  // A layer "prefix.weight" [n, k] and, if `bias`, "prefix.bias" [n].
  PackedMatrix linear(const std::string& prefix, int64_t n, int64_t k, bool bias);
  // Several layers over the same input as one: their outputs one behind the other.
  struct Part {
    std::string prefix;
    int64_t n;
  };
  PackedMatrix joined(const std::vector<Part>& parts, int64_t k, bool bias);
  // A convolution "prefix.weight" [n, 3, p, p] with "prefix.bias" as a matrix [n, 3 p p]. Never quantised: it is
  // small, and everything that the model sees comes through it.
  PackedMatrix convolution(const std::string& prefix, int64_t n, int64_t p);

  void pack(ThreadPool& pool);
  // The tensors among those asked for that hold NaN or Inf, by name.
  const std::set<std::string>& nonfinite() const { return nonfinite_; }

 private:
  // Rows of a tensor on their way to rows of a matrix.
  struct Job {
    const TensorInfo* tensor;
    int64_t first, count;  // of the tensor
    kernels::PackArgs packing;
  };
  bool measuring() const { return memory_.capacity() == 0; }
  void add_jobs(const TensorInfo& tensor, int64_t rows, const PackedMatrix& matrix, int64_t first);
  std::vector<size_t> group_jobs() const;
  bool run(Job job, std::span<float> scratch) const;

  const Checkpoint& checkpoint_;
  Arena& memory_;
  Format format_;
  std::vector<Job> jobs_;
  std::set<std::string> nonfinite_;
};

}  // namespace idefics
