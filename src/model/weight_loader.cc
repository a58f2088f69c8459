#include "model/weight_loader.h"

#include <algorithm>
#include <atomic>

namespace idefics {

namespace {

using kernels::kPanel;

// Bytes of weights that one thread packs at a time: a huge page. When two threads wrote to one, each would clear a page
// of its own, and one of them would be thrown away.
constexpr uintptr_t kGroupBytes = uintptr_t{2} << 20;
// Elements of a job at most, but whole panels: what has been looked over must still be in the second cache.
constexpr int64_t kJobElements = int64_t{1} << 18;

size_t element_bytes(StoredDType dtype) { return dtype == StoredDType::kF32 ? 4 : 2; }

std::span<const std::byte> rows_of(const TensorInfo& tensor, int64_t first, int64_t count, int64_t cols) {
  const size_t row = static_cast<size_t>(cols) * element_bytes(tensor.dtype);
  return tensor.bytes.subspan(static_cast<size_t>(first) * row, static_cast<size_t>(count) * row);
}

// Whether the kernels can read the tensor as it is stored.
bool packs_as_stored(const TensorInfo& tensor) { return tensor.dtype != StoredDType::kF16 && !tensor.channels_last; }

}  // namespace

std::vector<float> WeightLoader::vector(const std::string& name, std::initializer_list<int64_t> shape) {
  const TensorInfo& tensor = checkpoint_.get(name, shape);
  std::vector<float> out(static_cast<size_t>(tensor.num_elements()));
  if (measuring()) return out;
  if (has_nonfinite(tensor.dtype, tensor.bytes)) nonfinite_.insert(name);
  read_as_f32(tensor, out);
  checkpoint_.release(tensor.bytes);
  return out;
}

PackedMatrix WeightLoader::matrix(const std::string& name, int64_t n, int64_t k, Format format) {
  const TensorInfo& tensor = checkpoint_.get(name, {n, k});
  PackedMatrix matrix(memory_, format, n, k);
  add_jobs(tensor, n, matrix, 0);
  return matrix;
}

PackedMatrix WeightLoader::linear(const std::string& prefix, int64_t n, int64_t k, bool bias) {
  return joined({{prefix, n}}, k, bias);
}

PackedMatrix WeightLoader::joined(const std::vector<Part>& parts, int64_t k, bool bias) {
  std::vector<float> biases;
  int64_t n = 0;
  for (const Part& part : parts) {
    n += part.n;
    if (!bias) continue;
    const std::vector<float> b = vector(part.prefix + ".bias", {part.n});
    biases.insert(biases.end(), b.begin(), b.end());
  }
  PackedMatrix matrix(memory_, format_, n, k, std::move(biases));
  int64_t first = 0;
  for (const Part& part : parts) {
    add_jobs(checkpoint_.get(part.prefix + ".weight", {part.n, k}), part.n, matrix, first);
    first += part.n;
  }
  return matrix;
}

PackedMatrix WeightLoader::convolution(const std::string& prefix, int64_t n, int64_t p) {
  const TensorInfo& tensor = checkpoint_.get(prefix + ".weight", {n, 3, p, p});
  PackedMatrix matrix(memory_, format_.input(), n, 3 * p * p, vector(prefix + ".bias", {n}));
  add_jobs(tensor, n, matrix, 0);
  return matrix;
}

// Jobs end where panels end.
void WeightLoader::add_jobs(const TensorInfo& tensor, int64_t rows, const PackedMatrix& matrix, int64_t first) {
  if (measuring()) return;
  const int64_t most = std::max<int64_t>(kJobElements / matrix.k() / kPanel, 1) * kPanel;
  for (int64_t row = 0; row < rows;) {
    const int64_t count = std::min(most - (first + row) % kPanel, rows - row);
    const void* stored = rows_of(tensor, row, count, matrix.k()).data();
    const Element from = tensor.dtype == StoredDType::kBf16 ? Element::kBf16 : Element::kF32;
    jobs_.push_back({&tensor, row, count, matrix.row_packing(first + row, count, from, stored)});
    row += count;
  }
}

// The first job of each group, and the number of jobs. Jobs are in the order of the memory that they write.
std::vector<size_t> WeightLoader::group_jobs() const {
  std::vector<size_t> firsts;
  uintptr_t last = 0;
  for (size_t i = 0; i < jobs_.size(); ++i) {
    const kernels::PackArgs& p = jobs_[i].packing;
    const size_t before = kernels::packed_bytes(kPanel, p.k, p.format) * static_cast<size_t>(p.n0 / kPanel);
    const uintptr_t group = (reinterpret_cast<uintptr_t>(p.packed) + before) / kGroupBytes;
    if (group != last) firsts.push_back(i);
    last = group;
  }
  firsts.push_back(jobs_.size());
  return firsts;
}

void WeightLoader::pack(ThreadPool& pool) {
  const std::vector<size_t> groups = group_jobs();
  // Scratch is made before the region, whose body must not throw; only what is used takes memory.
  int64_t most = 0;
  for (const Job& job : jobs_) {
    if (!packs_as_stored(*job.tensor)) most = std::max(most, job.count * job.packing.k);
  }
  const auto size = static_cast<size_t>(most);
  std::vector<float> scratch(size * static_cast<size_t>(pool.num_threads()));
  std::vector<std::atomic<bool>> bad(jobs_.size());
  std::atomic<size_t> next{0};
  pool.parallel_for(pool.num_threads(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t worker = begin; worker < end; ++worker) {
      const std::span<float> own = std::span(scratch).subspan(static_cast<size_t>(worker) * size, size);
      for (size_t g = next.fetch_add(1); g + 1 < groups.size(); g = next.fetch_add(1)) {
        for (size_t i = groups[g]; i < groups[g + 1]; ++i) bad[i] = !run(jobs_[i], own);
      }
    }
  });
  for (size_t i = 0; i < jobs_.size(); ++i) {
    if (bad[i]) nonfinite_.insert(jobs_[i].tensor->name);
  }
  jobs_.clear();
}

// Says whether all elements were finite.
bool WeightLoader::run(Job job, std::span<float> scratch) const {
  const TensorInfo& tensor = *job.tensor;
  const int64_t k = job.packing.k;
  const std::span<const std::byte> bytes = rows_of(tensor, job.first, job.count, k);
  checkpoint_.fetch(bytes);
  const bool good = !has_nonfinite(tensor.dtype, bytes);
  if (!packs_as_stored(tensor)) {
    read_as_f32(tensor, scratch.first(static_cast<size_t>(job.count * k)), job.first * k);
    job.packing.w = scratch.data();
    job.packing.w_dtype = Element::kF32;
  }
  kernels::pack(job.packing);
  checkpoint_.release(bytes);
  return good;
}

}  // namespace idefics
