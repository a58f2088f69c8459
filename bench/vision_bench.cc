// How long the vision tower takes for one tile, from pixels to the features of the text model.
//
//   IDEFICS_BENCH_MODEL=folder vision_bench [--benchmark_filter=…]        IDEFICS_KERNELS chooses the level
//
// Arguments: threads, format (kernels/packing.h: 1 bf16, 2 q8, 3 q4, 4 int8). Real time is what a user waits for; CPU time, summed over the threads, is the better figure
// on a shared machine.
#include <benchmark/benchmark.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <span>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "idefics/config.h"
#include "model/network.h"

namespace idefics {
namespace {

// Everything that encode() needs.
class Encoder {
 public:
  Encoder(const char* folder, Format format, int threads)
      : pool_(threads),
        checkpoint_(Checkpoint::open(folder)),
        config_(make_config(folder)),
        network_(pool_, checkpoint_, config_, format),
        arena_(Network::scratch_bytes(config_, format, 1, 1, 1), "the benchmark"),
        pixels_(static_cast<size_t>(3 * config_.vision_config.image_size * config_.vision_config.image_size)),
        features_(static_cast<size_t>(config_.image_seq_len() * config_.text_config.hidden_size)) {
    for (size_t i = 0; i < pixels_.size(); ++i) pixels_[i] = static_cast<float>(i % 511) / 255 - 1;
  }
  void encode() {
    const int64_t E = config_.text_config.hidden_size;
    network_.encode({kernels::choose_table(), pool_, arena_}, std::span<const float>(pixels_),
                    Matrix<float>(features_.data(), config_.image_seq_len(), E));
  }

 private:
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
  Arena arena_;
  std::vector<float> pixels_, features_;
};

void BM_EncodeTile(benchmark::State& state) {
  const char* folder = std::getenv("IDEFICS_BENCH_MODEL");
  if (folder == nullptr) return state.SkipWithError("IDEFICS_BENCH_MODEL names no model folder");
  try {
    Encoder encoder(folder, static_cast<Format::Kind>(state.range(1)), static_cast<int>(state.range(0)));
    encoder.encode();
    for (auto _ : state) encoder.encode();
  } catch (const std::exception& error) {
    state.SkipWithError(error.what());
  }
}
BENCHMARK(BM_EncodeTile)
    ->ArgNames({"threads", "format"})
    ->ArgsProduct({{1, 2}, {Format::kBf16, Format::kInt8, Format::kQ8, Format::kQ4}})
    ->Unit(benchmark::kMillisecond)
    ->MeasureProcessCPUTime()
    ->UseRealTime();

}  // namespace
}  // namespace idefics

BENCHMARK_MAIN();
