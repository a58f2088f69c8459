// How near the kernels come to what one core of this CPU can do.
//
//   kernels_bench [--benchmark_filter=…]        IDEFICS_KERNELS chooses the level
//
// First the peaks of one thread (src/calibration). Every other figure is also printed as its share of the peak that
// bounds it. Where oneDNN and OpenBLAS are installed (libdnnl-dev, libopenblas-dev), their matrix products of the same
// sizes are there too (yardsticks.cc): --benchmark_filter=Gemm|OneDnn|OpenBlas. Run on a quiet machine; use
// --benchmark_repetitions=9 and read the medians on a shared one.
#include "kernels_bench.h"

#include <benchmark/benchmark.h>
#include <sys/mman.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "base/half.h"
#include "calibration/calibration.h"
#include "kernels/packing.h"
#include "kernels/table.h"

namespace idefics::kernels {
namespace {

// Zeroed memory as the engine holds weights and blocks: on huge pages where the system gives them.
class Buffer {
 public:
  explicit Buffer(size_t bytes) {
    constexpr size_t kHuge = size_t{2} << 20;
    bytes = (bytes + kHuge - 1) / kHuge * kHuge;
    data_.reset(static_cast<char*>(std::aligned_alloc(kHuge, bytes)));
    madvise(data_.get(), bytes, MADV_HUGEPAGE);
    std::memset(data_.get(), 0, bytes);
  }
  template <typename T>
  T* as() {
    return reinterpret_cast<T*>(data_.get());
  }

 private:
  struct Free {
    void operator()(char* p) const { std::free(p); }
  };
  std::unique_ptr<char, Free> data_;
};

std::vector<float> normals(size_t count) {
  std::mt19937 engine(1);
  std::normal_distribution<float> normal;
  std::vector<float> out(count);
  for (float& x : out) x = normal(engine);
  return out;
}

}  // namespace

// ---- peaks

const Rates& peaks() {
  static const Rates rates = [] {
    const Peaks one = calibrate(choose_table(), 1).one;
    return Rates{one.f32_flops.value_or(NAN), one.bf16_flops.value_or(NAN), one.int8_ops.value_or(NAN), one.read_bytes};
  }();
  return rates;
}

void report(benchmark::State& state, double flops, double bytes, double peak) {
  using benchmark::Counter;
  const double rounds = static_cast<double>(state.iterations());
  if (flops > 0) {
    state.counters["flop/s"] = Counter(flops * rounds, Counter::kIsRate);
    state.counters["share"] = Counter(flops * rounds / peak, Counter::kIsRate);
  } else {
    state.counters["B/s"] = Counter(bytes * rounds, Counter::kIsRate);
    state.counters["share"] = Counter(bytes * rounds / peak, Counter::kIsRate);
  }
}

namespace {

void BM_Peaks(benchmark::State& state) {
  for (auto _ : state) benchmark::DoNotOptimize(peaks());
  state.counters["f32 flop/s"] = peaks().f32;
  state.counters["bf16 flop/s"] = peaks().bf16;
  state.counters["read B/s"] = peaks().read;
}
BENCHMARK(BM_Peaks)->Iterations(1);

// ---- GEMM

// Arguments: M, N, K, bf16. With M = 1 the weights of many layers pass by, so that they come from memory.
void BM_Gemm(benchmark::State& state) {
  const int32_t m = static_cast<int32_t>(state.range(0)), n = static_cast<int32_t>(state.range(1)),
                k = static_cast<int32_t>(state.range(2));
  const bool bf16 = state.range(3) != 0;
  const DType dtype = bf16 ? DType::kBf16 : DType::kF32;
  const size_t bytes = packed_bytes(n, k, dtype);
  const size_t copies = m == 1 ? (size_t{256} << 20) / bytes + 1 : 1;
  const std::vector<float> w = normals(static_cast<size_t>(n) * static_cast<size_t>(k));
  Buffer packed(bytes * copies), a(static_cast<size_t>(m) * static_cast<size_t>(k) * 4),
      y(static_cast<size_t>(m) * static_cast<size_t>(n) * 4);
  for (size_t i = 0; i < copies; ++i) {
    pack({w.data(), DType::kF32, k, packed.as<char>() + i * bytes, dtype, 0, n, n, k});
  }
  for (int64_t i = 0; i < int64_t{m} * k; ++i) {
    const float x = w[static_cast<size_t>(i) % w.size()];
    bf16 ? void(a.as<uint16_t>()[i] = f32_to_bf16(x)) : void(a.as<float>()[i] = x);
  }
  GemmArgs args = {};
  args.a = a.as<void>(), args.b = packed.as<void>(), args.y = y.as<void>();
  args.a_stride = k, args.y_stride = n, args.m1 = m, args.panel1 = num_panels(n), args.n = n, args.k = k;
  args.y_dtype = dtype;
  const auto gemm = bf16 ? choose_table().gemm_bf16 : choose_table().gemm_f32;
  size_t copy = 0;
  for (auto _ : state) {
    args.b = packed.as<char>() + copy * bytes;
    gemm(args);
    benchmark::ClobberMemory();
    copy = copy + 1 < copies ? copy + 1 : 0;
  }
  if (m == 1) {
    report(state, 0, static_cast<double>(bytes), peaks().read);
  } else {
    report(state, 2.0 * m * n * k, 0, bf16 ? peaks().bf16 : peaks().f32);
  }
}
BENCHMARK(BM_Gemm)
    ->ArgNames({"M", "N", "K", "bf16"})
    ->ArgsProduct({{1024}, {3072}, {768}, {0, 1}})
    ->ArgsProduct({{1024}, {768}, {3072}, {0, 1}})
    ->ArgsProduct({{512}, {2304}, {768}, {1}})
    ->ArgsProduct({{876, 64}, {1536}, {576}, {0, 1}})
    ->ArgsProduct({{2, 3, 4, 5, 6, 8}, {1536}, {576}, {1}})
    ->ArgsProduct({{1}, {1536}, {576}, {0, 1}})
    ->ArgsProduct({{1}, {576}, {1536}, {0, 1}})
    ->ArgsProduct({{1}, {49280}, {576}, {0, 1}});

// ---- GEMM of quantised matrices

// Arguments: M, N, K, Format. As above; with many rows the share is that of bf16's peak, or int8's.
void BM_QuantGemm(benchmark::State& state) {
  const int32_t m = static_cast<int32_t>(state.range(0)), n = static_cast<int32_t>(state.range(1)),
                k = static_cast<int32_t>(state.range(2));
  const Format format = static_cast<Format::Kind>(state.range(3));
  const bool int8 = format == Format::kInt8;
  const size_t bytes = packed_bytes(n, k, format);
  const size_t copies = m == 1 ? (size_t{256} << 20) / bytes + 1 : 1;
  const std::vector<float> w = normals(static_cast<size_t>(n) * static_cast<size_t>(k));
  Buffer packed(bytes * copies), a(static_cast<size_t>(m) * static_cast<size_t>(k) * 2),
      y(static_cast<size_t>(m) * static_cast<size_t>(n) * 4);
  pack({w.data(), DType::kF32, k, packed.as<char>(), format, 0, n, n, k});
  for (size_t i = 1; i < copies; ++i) std::memcpy(packed.as<char>() + i * bytes, packed.as<char>(), bytes);
  for (int64_t i = 0; i < int64_t{m} * k; ++i) a.as<uint16_t>()[i] = f32_to_bf16(w[static_cast<size_t>(i) % w.size()]);
  const auto groups = static_cast<size_t>(num_groups(k, int8 ? kGroupInt8 : kGroup));
  const auto rows = static_cast<size_t>(m);
  std::vector<float> a_groups(rows * groups);
  std::vector<int32_t> a_integers(rows * groups);
  std::vector<int8_t> a_int8(rows * groups * kGroupInt8);
  QuantGemmArgs args = {};
  args.a_groups = a_groups.data(), args.a_integers = a_integers.data();
  args.gemm.a = int8 ? static_cast<const void*>(a_int8.data()) : a.as<void>();
  args.gemm.a_stride = int8 ? static_cast<int64_t>(groups) * kGroupInt8 : k;
  args.gemm.y = y.as<void>(), args.gemm.y_stride = n, args.gemm.m1 = m;
  args.gemm.panel1 = num_panels(n), args.gemm.n = n, args.gemm.k = k, args.gemm.y_dtype = DType::kF32;
  const QuantKernels& quant = choose_table().quant;
  size_t copy = 0;
  for (auto _ : state) {
    if (int8) quant.quantize({a.as<uint16_t>(), a_int8.data(), a_groups.data(), a_integers.data(), k, 0, m, k});
    if (format == Format::kQ4) quant.group_sums({a.as<uint16_t>(), a_groups.data(), k, 0, m, k});
    args.gemm.b = packed.as<char>() + copy * bytes;
    (int8 ? quant.gemm_int8 : format == Format::kQ8 ? quant.gemm_q8 : quant.gemm_q4)(args);
    benchmark::ClobberMemory();
    copy = copy + 1 < copies ? copy + 1 : 0;
  }
  state.SetLabel(name_of(format));
  if (m == 1) {
    report(state, 0, static_cast<double>(bytes), peaks().read);
  } else {
    report(state, 2.0 * m * n * k, 0, int8 ? peaks().int8 : peaks().bf16);
  }
}
BENCHMARK(BM_QuantGemm)
    ->ArgNames({"M", "N", "K", "format"})
    ->ArgsProduct({{1024}, {3072}, {768}, {Format::kQ8, Format::kQ4, Format::kInt8}})
    ->ArgsProduct({{1024}, {768}, {3072}, {Format::kQ8, Format::kQ4, Format::kInt8}})
    ->ArgsProduct({{4, 8, 64}, {1536}, {576}, {Format::kQ8, Format::kQ4, Format::kInt8}})
    ->ArgsProduct({{1}, {1536}, {576}, {Format::kQ8, Format::kQ4, Format::kInt8}})
    ->ArgsProduct({{1}, {49280}, {576}, {Format::kQ8, Format::kQ4, Format::kInt8}});

// ---- attention

// Arguments: tokens, keys, query heads of a kv head, D, kv (0 f32, 1 bf16, 2 q8), causal. Twelve kv heads, as in a
// layer of SmolVLM-256M.
void BM_Attention(benchmark::State& state) {
  constexpr int32_t kHeads = 12;
  const int32_t tokens = static_cast<int32_t>(state.range(0)), keys = static_cast<int32_t>(state.range(1)),
                group = static_cast<int32_t>(state.range(2)), d = static_cast<int32_t>(state.range(3));
  const auto type = static_cast<KvType>(state.range(4));
  const bool causal = state.range(5) != 0;
  const int32_t blocks = (keys + kBlock - 1) / kBlock, width = kHeads * group * d;
  const size_t block_bytes = static_cast<size_t>(kBlock * padded_head(d)) * 4;
  Buffer pool(static_cast<size_t>(2 * kHeads * blocks) * block_bytes), y(static_cast<size_t>(tokens * width) * 4);
  std::vector<const void*> k_blocks, v_blocks;
  for (int32_t i = 0; i < kHeads * blocks; ++i) {
    k_blocks.push_back(pool.as<char>() + static_cast<size_t>(2 * i) * block_bytes);
    v_blocks.push_back(pool.as<char>() + static_cast<size_t>(2 * i + 1) * block_bytes);
  }
  const std::vector<float> x = normals(static_cast<size_t>(tokens * width)),
                           kv = normals(static_cast<size_t>(2 * keys * d));
  const Table& table = choose_table();
  for (int32_t head = 0; head < kHeads; ++head) {
    for (int32_t j = 0; j < keys; ++j) {
      const size_t block = static_cast<size_t>(head * blocks + j / kBlock);
      table.kv_store({kv.data() + 2 * j * d, kv.data() + (2 * j + 1) * d, const_cast<void*>(k_blocks[block]),
                      const_cast<void*>(v_blocks[block]), d, d, j % kBlock, j % kBlock + 1, d, type});
    }
  }
  std::vector<int32_t> limit;
  double pairs = 0;
  for (int32_t t = 0; t < tokens; ++t) limit.push_back(causal ? keys - tokens + t + 1 : keys), pairs += limit.back();
  const auto attention = type == KvType::kF32    ? table.attention_f32
                         : type == KvType::kBf16 ? table.attention_bf16
                                                 : table.attention_q8;
  for (auto _ : state) {
    for (int32_t head = 0; head < kHeads; ++head) {
      attention({x.data() + head * group * d, y.as<float>() + head * group * d, k_blocks.data() + head * blocks,
                 v_blocks.data() + head * blocks, limit.data(), width, width, 0, tokens * group, group, d,
                 1 / std::sqrt(static_cast<float>(d)), DType::kF32});
    }
    benchmark::ClobberMemory();
  }
  report(state, 4.0 * kHeads * group * pairs * d, 0, type == KvType::kF32 ? peaks().f32 : peaks().bf16);
}
BENCHMARK(BM_Attention)
    ->ArgNames({"T", "keys", "group", "D", "kv", "causal"})
    ->ArgsProduct({{1024}, {1024}, {1}, {64}, {0, 1}, {0}})
    ->ArgsProduct({{1024}, {1024}, {1}, {72}, {1}, {0}})
    ->ArgsProduct({{1024}, {1024}, {3}, {64}, {1, 2}, {1}})
    ->ArgsProduct({{1}, {1024, 6144}, {3}, {64}, {0, 1, 2}, {1}})
    ->Unit(benchmark::kMillisecond);

// ---- rows

void BM_LayerNorm(benchmark::State& state) {
  const int32_t t = 1024, e = 768;
  const std::vector<float> x = normals(t * e), w = normals(e);
  Buffer y(t * e * 4);
  for (auto _ : state) {
    choose_table().layer_norm({x.data(), w.data(), w.data(), y.as<void>(), e, e, 0, t, e, 1e-6f, DType::kBf16});
    benchmark::ClobberMemory();
  }
  report(state, 0, t * e * 6.0, peaks().read);
}
BENCHMARK(BM_LayerNorm);

void BM_KvStore(benchmark::State& state) {
  const int32_t tokens = 1024, d = 64;
  const std::vector<float> x = normals(tokens * d);
  Buffer k(tokens * d * 2), v(tokens * d * 2);
  for (auto _ : state) {
    for (int32_t t = 0; t < tokens; t += kBlock) {
      choose_table().kv_store({x.data() + t * d, x.data() + t * d, k.as<uint16_t>() + t * d, v.as<uint16_t>() + t * d,
                               d, d, 0, kBlock, d, KvType::kBf16});
    }
    benchmark::ClobberMemory();
  }
  report(state, 0, tokens * d * 12.0, peaks().read);
}
BENCHMARK(BM_KvStore);

}  // namespace
}  // namespace idefics::kernels

BENCHMARK_MAIN();
