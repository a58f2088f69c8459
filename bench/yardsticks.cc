// The matrix products of kernels_bench by libraries that many use, on one core: oneDNN, whose weights are brought into
// the order that it likes best beforehand, and OpenBLAS. The arguments are those of BM_Gemm; with M = 1 the weights of
// many layers pass by as well.
#include <benchmark/benchmark.h>

#include <numeric>
#include <vector>

#include "kernels_bench.h"

#if defined(IDEFICS_HAVE_ONEDNN)
#include <oneapi/dnnl/dnnl.hpp>
extern "C" void omp_set_num_threads(int count);  // oneDNN's threads
#endif
#if defined(IDEFICS_HAVE_OPENBLAS)
#include <cblas.h>
#endif

namespace idefics::kernels {
namespace {

constexpr size_t kManyBytes = size_t{256} << 20;

size_t copies_of(int64_t m, size_t bytes) { return m == 1 ? kManyBytes / bytes + 1 : 1; }

void report_product(benchmark::State& state, size_t weight_bytes, double peak) {
  const double m = static_cast<double>(state.range(0)), n = static_cast<double>(state.range(1)),
               k = static_cast<double>(state.range(2));
  if (state.range(0) == 1) {
    report(state, 0, static_cast<double>(weight_bytes), peaks().read);
  } else {
    report(state, 2.0 * m * n * k, 0, peak);
  }
}

#if defined(IDEFICS_HAVE_ONEDNN)

// Arguments: M, N, K, type: 0 float32, 1 bfloat16, 2 int8 (unsigned times signed, sums stay integers).
void BM_OneDnn(benchmark::State& state) {
  using dnnl::memory;
  using Type = memory::data_type;
  omp_set_num_threads(1);
  const int64_t m = state.range(0), n = state.range(1), k = state.range(2), type = state.range(3);
  const Type left = type == 0 ? Type::f32 : type == 1 ? Type::bf16 : Type::u8;
  const Type right = type == 2 ? Type::s8 : left, out = type == 2 ? Type::s32 : Type::f32;
  const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  dnnl::stream stream(engine);
  const memory::desc a({m, k}, left, memory::format_tag::ab), b({k, n}, right, memory::format_tag::any),
      y({m, n}, out, memory::format_tag::ab), plain({k, n}, Type::f32, memory::format_tag::ab);
  const dnnl::matmul::primitive_desc product(dnnl::matmul::desc(a, b, y), engine);
  std::vector<float> values(static_cast<size_t>(n * k));
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 13) - 6;
  memory from(plain, engine, values.data());
  std::vector<memory> weights;
  const size_t bytes = product.weights_desc().get_size();
  for (size_t i = 0; i < copies_of(m, bytes); ++i) {
    weights.emplace_back(product.weights_desc(), engine);
    dnnl::reorder(from, weights.back()).execute(stream, from, weights.back());
  }
  const memory::desc rows_desc({m, k}, Type::f32, memory::format_tag::ab);
  std::vector<float> row_values(static_cast<size_t>(m * k), 1);
  memory rows(rows_desc, engine, row_values.data()), x(a, engine), sums(y, engine);
  dnnl::reorder(rows, x).execute(stream, rows, x);
  stream.wait();
  const dnnl::matmul matmul(product);
  size_t copy = 0;
  for (auto _ : state) {
    matmul.execute(stream, {{DNNL_ARG_SRC, x}, {DNNL_ARG_WEIGHTS, weights[copy]}, {DNNL_ARG_DST, sums}});
    stream.wait();
    benchmark::ClobberMemory();
    copy = copy + 1 < weights.size() ? copy + 1 : 0;
  }
  state.SetLabel(type == 0 ? "f32" : type == 1 ? "bf16" : "int8");
  report_product(state, bytes, type == 0 ? peaks().f32 : type == 1 ? peaks().bf16 : peaks().int8);
}
BENCHMARK(BM_OneDnn)
    ->ArgNames({"M", "N", "K", "type"})
    ->ArgsProduct({{1024}, {3072}, {768}, {0, 1, 2}})
    ->ArgsProduct({{1024}, {768}, {3072}, {0, 1, 2}})
    ->ArgsProduct({{64}, {1536}, {576}, {0, 1, 2}})
    ->ArgsProduct({{1}, {49280}, {576}, {0, 1, 2}});

#endif

#if defined(IDEFICS_HAVE_OPENBLAS)

// Arguments: M, N, K. Weights as they lie in a checkpoint, [N, K].
void BM_OpenBlas(benchmark::State& state) {
  openblas_set_num_threads(1);
  const int m = static_cast<int>(state.range(0)), n = static_cast<int>(state.range(1)),
            k = static_cast<int>(state.range(2));
  const size_t size = static_cast<size_t>(n) * static_cast<size_t>(k), copies = copies_of(m, 4 * size);
  std::vector<float> w(size * copies), a(static_cast<size_t>(m) * static_cast<size_t>(k), 1),
      y(static_cast<size_t>(m) * static_cast<size_t>(n));
  std::iota(w.begin(), w.end(), 1.0f);
  size_t copy = 0;
  for (auto _ : state) {
    const float* b = w.data() + copy * size;
    if (m == 1) {
      cblas_sgemv(CblasRowMajor, CblasNoTrans, n, k, 1, b, k, a.data(), 1, 0, y.data(), 1);
    } else {
      cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, m, n, k, 1, a.data(), k, b, k, 0, y.data(), n);
    }
    benchmark::ClobberMemory();
    copy = copy + 1 < copies ? copy + 1 : 0;
  }
  state.SetLabel("f32");
  report_product(state, 4 * size, peaks().f32);
}
BENCHMARK(BM_OpenBlas)
    ->ArgNames({"M", "N", "K"})
    ->Args({1024, 3072, 768})
    ->Args({1024, 768, 3072})
    ->Args({64, 1536, 576})
    ->Args({1, 49280, 576});

#endif

}  // namespace
}  // namespace idefics::kernels
