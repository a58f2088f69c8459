#include "model/connector.h"

#include <cmath>
#include <cstring>

namespace idefics {

namespace {

struct Scratch {
  Matrix<float> shuffled;
  Activation h;
  Scratch(Arena& arena, Format format, int64_t tokens, int64_t width) {
    shuffled = arena.take_matrix(tokens, width);
    h = arena.take_activation(format, tokens, width);
  }
};

}  // namespace

void connect(const Exec& exec, int scale_factor, const PackedMatrix& projection, Matrix<const float> patches,
             Matrix<float> features) {
  const int64_t s = scale_factor, D = patches.cols();
  const auto n = static_cast<int64_t>(std::lround(std::sqrt(static_cast<double>(patches.rows()))));
  const int64_t m = n / s;  // blocks per side
  IDEFICS_CHECK(n * n == patches.rows() && m * s == n && features.rows() == m * m && projection.k() == D * s * s);
  ArenaScope scope(exec.arena);
  const Scratch scratch(exec.arena, projection.format(), m * m, projection.k());
  exec.pool.parallel_for(m * m, 8, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      float* out = scratch.shuffled.row(t);
      for (int64_t dy = 0; dy < s; ++dy, out += s * D) {
        // The s patches of one line of the block are neighbours in memory.
        std::memcpy(out, patches.row((t / m * s + dy) * n + t % m * s), static_cast<size_t>(s * D) * sizeof(float));
      }
    }
  });
  ops::convert(exec, scratch.shuffled, scratch.h);
  ops::matmul(exec, scratch.h, projection, features);
}

void plan_connect(Arena& arena, int scale_factor, Format format, int64_t num_patches, int64_t width) {
  ArenaScope scope(arena);
  const int64_t block = int64_t{scale_factor} * scale_factor;
  Scratch(arena, format, num_patches / block, block * width);
}

}  // namespace idefics
