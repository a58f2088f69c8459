// How long the text tower takes for a step: some sequences that get one token each, or one that gets many.
//
//   IDEFICS_BENCH_MODEL=folder text_bench [--benchmark_filter=…]        IDEFICS_KERNELS chooses the level
//
// Arguments: threads, sequences, rows of each, tokens that each has in the cache already, and how the cache keeps them
// (0 f32, 1 bf16, 2 q8). Reported: tokens per second, the bytes of weights, keys and values that a step must read, and
// how fast as many threads read plain memory, which is the bound of decoding.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <numeric>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "idefics/config.h"
#include "model/network.h"

namespace idefics {
namespace {

// Bytes per second that the threads of the pool read together, each its own half of memory larger than any L2.
double read_speed(ThreadPool& pool) {
  static Buffer buffer(size_t{512} << 20, "reading");
  const std::span<uint64_t> words = buffer.as<uint64_t>();
  const int64_t count = std::ssize(words) / pool.num_threads();
  std::vector<uint64_t> sums(static_cast<size_t>(pool.num_threads()) * 64);
  double best = 1e9;
  for (int round = 0; round < 8; ++round) {  // the first one touches the pages
    if (round == 0) std::fill(words.begin(), words.end(), 1);
    const auto start = std::chrono::steady_clock::now();
    pool.parallel_for(pool.num_threads(), 1, [&](int64_t begin, int64_t end) {
      for (int64_t part = begin; part < end; ++part) {
        uint64_t lane[8] = {};
        const uint64_t* p = words.data() + part * count;
        for (int64_t i = 0; i < count; i += 8) {
          for (int64_t j = 0; j < 8; ++j) lane[j] += p[i + j];
        }
        sums[static_cast<size_t>(part) * 64] += std::accumulate(lane, lane + 8, uint64_t{0});
      }
    });
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  benchmark::DoNotOptimize(sums.data());
  return static_cast<double>(buffer.size()) / best;
}

// Sequences of equal length over pages of their own.
class Batch {
 public:
  Batch(const char* folder, int threads, int sequences, int rows, int context, KvType kv)
      : pool_(threads),
        checkpoint_(Checkpoint::open(folder)),
        config_(make_config(folder)),
        network_(pool_, checkpoint_, config_, Element::kBf16),
        rows_(sequences * rows),
        num_pages_((context + rows + config_.get_kv_params().page_size - 1) / config_.get_kv_params().page_size),
        arena_(Network::scratch_bytes(config_, Element::kBf16, rows_, sequences * num_pages_, sequences), "scratch"),
        cache_(Network::kv_shape(config_, kv), sequences * num_pages_),
        x_(static_cast<size_t>(rows_) * static_cast<size_t>(config_.text_config.hidden_size)),
        logits_(static_cast<size_t>(sequences) * static_cast<size_t>(config_.text_config.vocab_size)) {
    pages_.resize(static_cast<size_t>(sequences) * static_cast<size_t>(num_pages_));
    std::iota(pages_.begin(), pages_.end(), 0);
    for (int i = 0; i < sequences; ++i) {
      const auto first_page = static_cast<size_t>(i) * static_cast<size_t>(num_pages_);
      sequences_.push_back({i * rows, rows, context, std::span(pages_).subspan(first_page, num_pages_)});
      last_rows_.push_back((i + 1) * rows - 1);
    }
    ids_.assign(static_cast<size_t>(rows_), 7);
    // What attention reads: the cache holds zeros, of which a page may be one and the same for all.
    bytes_ = static_cast<double>(text_bytes()) + static_cast<double>(cache_.bytes()) * context /
                                                     (static_cast<double>(num_pages_) * cache_.shape().page_size);
    touch();
  }

  void step() {
    const int64_t E = config_.text_config.hidden_size, V = config_.text_config.vocab_size;
    const Exec exec{kernels::choose_table(), pool_, arena_};
    const Matrix<float> x(x_.data(), rows_, E);
    network_.embed(ids_, x);
    network_.run(exec, sequences_, cache_, x);
    network_.logits(exec, x, last_rows_, Matrix<float>(logits_.data(), std::ssize(last_rows_), V));
  }
  int64_t rows() const { return rows_; }
  double bytes() const { return bytes_; }
  ThreadPool& pool() { return pool_; }

 private:
  // Runs every position once, so that all pages of the cache are there.
  void touch() {
    std::vector<SequenceRows> wanted = sequences_;
    for (SequenceRows& s : wanted) s.context = 0;
    std::swap(wanted, sequences_);
    const int context = wanted.front().context;
    for (int at = 0; at < context; at += wanted.front().num_rows * 64) {
      for (SequenceRows& s : sequences_) s.context = at;
      step();
    }
    std::swap(wanted, sequences_);
  }
  size_t text_bytes() const {
    const Llama3Config& c = config_.text_config;
    const int64_t E = c.hidden_size, D = c.head_dim, H = c.num_attention_heads, G = c.num_key_value_heads;
    const int64_t layer = E * (2 * H + 2 * G) * D + E * 3 * c.intermediate_size;
    return static_cast<size_t>(2 * (layer * c.num_hidden_layers + E * c.vocab_size));
  }
  Idefics3Config make_config(const char* folder) const {
    PipelineConfig pipeline;
    pipeline.model.huggingface_config = HuggingFaceConfig::load(folder);
    Idefics3Config config = Idefics3Config::initialize(pipeline);
    config.finalize(*pipeline.model.huggingface_config, checkpoint_.state_dict(), ReturnLogits::kLastToken);
    return config;
  }

  ThreadPool pool_;
  Checkpoint checkpoint_;
  Idefics3Config config_;
  Network network_;
  int64_t rows_;
  int64_t num_pages_;
  Arena arena_;
  KvCache cache_;
  std::vector<float> x_, logits_;
  std::vector<PageId> pages_;
  std::vector<SequenceRows> sequences_;
  std::vector<int32_t> ids_, last_rows_;
  double bytes_ = 0;
};

void BM_Step(benchmark::State& state) {
  const char* folder = std::getenv("IDEFICS_BENCH_MODEL");
  if (folder == nullptr) return state.SkipWithError("IDEFICS_BENCH_MODEL names no model folder");
  try {
    Batch batch(folder, static_cast<int>(state.range(0)), static_cast<int>(state.range(1)),
                static_cast<int>(state.range(2)), static_cast<int>(state.range(3)),
                static_cast<KvType>(state.range(4)));
    const double plain = read_speed(batch.pool());
    batch.step();
    for (auto _ : state) batch.step();
    using benchmark::Counter;
    const double steps = static_cast<double>(state.iterations());
    state.counters["tokens/s"] = Counter(steps * static_cast<double>(batch.rows()), Counter::kIsRate);
    state.counters["B/s"] = Counter(steps * batch.bytes(), Counter::kIsRate);
    state.counters["plain read B/s"] = Counter(plain);
  } catch (const std::exception& error) {
    state.SkipWithError(error.what());
  }
}
BENCHMARK(BM_Step)
    ->ArgNames({"threads", "sequences", "rows", "context", "kv"})
    ->ArgsProduct({{1, 2}, {1}, {1}, {64, 940}, {1}})
    ->ArgsProduct({{2}, {1}, {1}, {6000}, {0, 1, 2}})
    ->ArgsProduct({{2}, {2, 4, 8, 16}, {1}, {200}, {1}})
    ->ArgsProduct({{1, 2}, {1}, {512}, {0}, {1}})
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();

}  // namespace
}  // namespace idefics

BENCHMARK_MAIN();
