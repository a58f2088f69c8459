// What quantisation costs: a checkpoint in every format beside itself in float32.
//
//   accuracy_bench FOLDER --text FILE [TOKENS]     text in windows of 512 tokens: perplexity, errors of logits,
//   likeliest token accuracy_bench FOLDER --cards FILE             greedy answers; a line of FILE is PICTURE <tab>
//   QUESTION
//
// The figures depend on the level (IDEFICS_KERNELS) in their last digits, and on nothing else: not on how busy the
// machine is.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "base/files.h"
#include "engine/engine_parts.h"
#include "idefics/engine.h"
#include "model/network.h"

namespace idefics {
namespace {

// Weights, and keys and values beside them. The first is what the others are compared with.
constexpr std::pair<Format, KvType> kFormats[] = {
    {Format::kF32, KvType::kF32},   {Format::kF32, KvType::kBf16},  {Format::kF32, KvType::kQ8},
    {Format::kBf16, KvType::kF32},  {Format::kBf16, KvType::kBf16}, {Format::kBf16, KvType::kQ8},
    {Format::kInt8, KvType::kBf16}, {Format::kQ8, KvType::kBf16},   {Format::kQ8, KvType::kQ8},
    {Format::kQ4, KvType::kBf16},   {Format::kQ4, KvType::kQ8},
};
constexpr int64_t kWindow = 512;

struct Model {
  Model(ThreadPool& pool_, const Checkpoint& checkpoint, const Idefics3Config& config, Format format_, KvType kv)
      : format(format_),
        pool(pool_),
        network(pool, checkpoint, config, format),
        shape(Network::kv_shape(config, kv)),
        arena(Network::scratch_bytes(config, format, kWindow, num_pages(), kWindow), "scratch"),
        cache(shape, num_pages()) {
    pages.resize(static_cast<size_t>(num_pages()));
    std::iota(pages.begin(), pages.end(), 0);
  }
  int64_t num_pages() const { return (kWindow + shape.page_size - 1) / shape.page_size; }

  // The logits of all tokens of a window.
  void run(std::span<const int32_t> ids, Matrix<float> logits) {
    const Exec exec{kernels::choose_table(), pool, arena};
    const auto T = std::ssize(ids);
    std::vector<float> hidden(static_cast<size_t>(T * network.config().text_config.hidden_size));
    const Matrix<float> x(hidden.data(), T, network.config().text_config.hidden_size);
    network.embed(ids, x);
    const SequenceRows rows{0, static_cast<int32_t>(T), 0, pages};
    network.run(exec, std::span(&rows, 1), cache, x);
    std::vector<int32_t> all(ids.size());
    std::iota(all.begin(), all.end(), 0);
    network.logits(exec, x, all, logits);
  }

  Format format;
  ThreadPool& pool;
  Network network;
  KvCache::Shape shape;
  Arena arena;
  KvCache cache;
  std::vector<PageId> pages;

  double nats = 0, error = 0, most = 0, divergence = 0;  // sums over tokens; `error` over all logits
  int64_t tokens = 0, values = 0, agreed = 0;
};

const char* name_of(KvType dtype) { return dtype == KvType::kF32 ? "f32" : dtype == KvType::kBf16 ? "bf16" : "q8"; }

double log_sum(const float* logits, int64_t V) {
  const float most = *std::max_element(logits, logits + V);
  double sum = 0;
  for (int64_t i = 0; i < V; ++i) sum += std::exp(double{logits[i]} - double{most});
  return double{most} + std::log(sum);
}

void count(Model& model, std::span<const int32_t> ids, Matrix<const float> logits, Matrix<const float> wanted) {
  const int64_t V = logits.cols();
  for (int64_t t = 0; t + 1 < std::ssize(ids); ++t) {
    const float *y = logits.row(t), *w = wanted.row(t);
    const double all = log_sum(y, V), all_wanted = log_sum(w, V);
    model.nats += all - double{y[ids[static_cast<size_t>(t) + 1]]};
    for (int64_t i = 0; i < V; ++i) {
      const double d = std::fabs(double{y[i]} - double{w[i]});
      model.error += d;
      model.most = std::max(model.most, d);
      model.divergence += std::exp(double{w[i]} - all_wanted) * ((double{w[i]} - all_wanted) - (double{y[i]} - all));
    }
    model.values += V;
    model.agreed += std::max_element(y, y + V) - y == std::max_element(w, w + V) - w;
    ++model.tokens;
  }
}

void compare_text(const std::filesystem::path& folder, const char* file, int64_t most_tokens) {
  const Processor processor = Processor::load(folder);
  std::vector<int32_t> ids = processor.tokenize(read_file(file, uint64_t{1} << 26), false, true);
  if (std::ssize(ids) > most_tokens) ids.resize(static_cast<size_t>(most_tokens));
  PipelineConfig pipeline;
  pipeline.model.model_path = folder;
  pipeline.model.huggingface_config = HuggingFaceConfig::load(folder);
  Idefics3Config config = Idefics3Config::initialize(pipeline);
  const Checkpoint checkpoint = Checkpoint::open(folder);
  config.finalize(*pipeline.model.huggingface_config, checkpoint.state_dict(), ReturnLogits::kLastToken);
  ThreadPool pool(num_available_cpus());
  std::vector<std::unique_ptr<Model>> models;
  for (const auto& [format, kv] : kFormats)
    models.push_back(std::make_unique<Model>(pool, checkpoint, config, format, kv));

  const int64_t V = config.text_config.vocab_size;
  std::vector<float> wanted(static_cast<size_t>(kWindow * V)), logits(wanted.size());
  for (int64_t first = 0; first + kWindow <= std::ssize(ids); first += kWindow) {
    const std::span<const int32_t> window = std::span(ids).subspan(static_cast<size_t>(first), kWindow);
    const Matrix<float> w(wanted.data(), kWindow, V), y(logits.data(), kWindow, V);
    models.front()->run(window, w);
    for (auto& model : models) {
      if (model != models.front()) model->run(window, y);
      count(*model, window, model == models.front() ? w : y, w);
    }
  }
  const double base = std::exp(models.front()->nats / static_cast<double>(models.front()->tokens));
  fmt::print("{} tokens of {}, level {}\n", models.front()->tokens, file, kernels::choose_table().name);
  fmt::print("{:6} {:5} {:>12} {:>10} {:>12} {:>12} {:>12} {:>10}\n", "format", "KV", "perplexity", "change",
             "mean error", "most", "divergence", "likeliest");
  for (const auto& m : models) {
    const auto tokens = static_cast<double>(m->tokens);
    const double perplexity = std::exp(m->nats / tokens);
    fmt::print("{:6} {:5} {:12.4f} {:+9.3f}% {:12.5f} {:12.4f} {:12.6f} {:9.2f}%\n", kernels::name_of(m->format),
               name_of(m->shape.dtype), perplexity, 100 * (perplexity / base - 1),
               m->error / static_cast<double>(m->values), m->most, m->divergence / tokens,
               100 * static_cast<double>(m->agreed) / tokens);
  }
}

struct Card {
  std::string picture, question;
};

void compare_cards(const std::filesystem::path& folder, const std::filesystem::path& file) {
  std::vector<Card> cards;
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    const size_t tab = line.find('\t');
    if (tab != std::string::npos)
      cards.push_back({(file.parent_path() / line.substr(0, tab)).string(), line.substr(tab + 1)});
  }
  std::vector<std::vector<int32_t>> wanted;
  fmt::print("{} cards, level {}\n{:6} {:5} {:>14} {:>14}\n", cards.size(), kernels::choose_table().name, "format",
             "KV", "same answers", "same tokens");
  constexpr std::pair<ComputeType, KvCacheType> kTypes[] = {
      {ComputeType::kF32, KvCacheType::kF32},   {ComputeType::kF32, KvCacheType::kQ8},
      {ComputeType::kBf16, KvCacheType::kBf16}, {ComputeType::kBf16, KvCacheType::kQ8},
      {ComputeType::kInt8, KvCacheType::kBf16}, {ComputeType::kQ8, KvCacheType::kBf16},
      {ComputeType::kQ4, KvCacheType::kBf16}};
  for (const auto& [type, kv] : kTypes) {
    EngineOptions options;
    options.dtype = type;
    options.kv_cache_dtype = kv;
    Engine engine = Engine::load(folder, options);
    int64_t answers = 0, tokens = 0, same = 0;
    for (size_t i = 0; i < cards.size(); ++i) {
      Request request;
      Message user{"user", {}};
      user.content.push_back(ContentPart::of_image(read_file(cards[i].picture, uint64_t{1} << 26)));
      user.content.push_back(ContentPart::of_text(cards[i].question));
      request.messages.push_back(std::move(user));
      request.sampling.max_tokens = 48;
      const std::vector<int32_t> ids = engine.generate(request).token_ids();
      if (std::ssize(wanted) == static_cast<int64_t>(i)) wanted.push_back(ids);
      answers += ids == wanted[i];
      for (size_t t = 0; t < wanted[i].size(); ++t) same += t < ids.size() && ids[t] == wanted[i][t];
      tokens += std::ssize(wanted[i]);
    }
    fmt::print("{:6} {:5} {:13.1f}% {:13.2f}%\n", engine.dtype(), engine.kv_cache_dtype(),
               100.0 * static_cast<double>(answers) / static_cast<double>(cards.size()),
               100.0 * static_cast<double>(same) / static_cast<double>(tokens));
  }
}

}  // namespace
}  // namespace idefics

int main(int argc, char** argv) {
  const std::string what = argc > 2 ? argv[2] : "";
  if ((what != "--text" && what != "--cards") || argc < 4 || argc > 5) {
    std::fputs("usage: accuracy_bench FOLDER --text FILE [TOKENS] | --cards FILE\n", stderr);
    return 2;
  }
  try {
    if (what == "--text") {
      idefics::compare_text(argv[1], argv[3], argc > 4 ? std::strtoll(argv[4], nullptr, 10) : INT64_MAX);
    } else {
      idefics::compare_cards(argv[1], argv[3]);
    }
  } catch (const std::exception& e) {
    fmt::print(stderr, "{}\n", e.what());
    return 1;
  }
}
