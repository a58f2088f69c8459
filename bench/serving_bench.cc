// Many requests at once: throughput and latency of the engine, without a network in between.
//
//   serving_bench CHECKPOINT [--streams 1,4,8,16] [--tokens 128] [--runs 5] [--text] [--no-speculation] IMAGE...
//
// All requests of a run are handed in at the same moment; request i gets picture i, or with --text none. Prints medians
// over the runs, each run in an engine whose caches are empty.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/files.h"
#include "idefics/engine.h"

namespace idefics {
namespace {

using Clock = std::chrono::steady_clock;

double ms_since(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

double quantile(std::vector<double> values, double q) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[static_cast<size_t>(q * static_cast<double>(values.size() - 1) + 0.5)];
}

struct Options {
  std::string checkpoint;
  std::vector<int> streams = {1, 4, 8, 16};
  int tokens = 128, runs = 5;
  bool text = false, speculative = true;
  std::vector<std::string> pictures;  // encoded
};

struct Run {
  double requests_per_s, tokens_per_s, ttft_p50, ttft_p95, gap_p50, gap_p95, gap_most, plan_share;
};

Request make_request(const Options& options, int i) {
  Request request;
  Message message{"user", {}};
  if (!options.text) message.content.push_back(ContentPart::of_image(options.pictures[static_cast<size_t>(i)]));
  message.content.push_back(ContentPart::of_text(options.text ? fmt::format("Write a story about the number {}.", i)
                                                              : "Can you describe this image?"));
  request.messages.push_back(std::move(message));
  request.sampling.max_tokens = options.tokens;
  request.sampling.ignore_eos = true;
  return request;
}

Run run_once(const Options& options, int streams) {
  Engine engine = Engine::load(options.checkpoint, {.speculative = options.speculative});
  std::vector<Request> requests;
  for (int i = 0; i < streams; ++i) requests.push_back(make_request(options, i));
  std::vector<std::vector<double>> times(requests.size());  // of each token
  std::mutex mutex;
  std::condition_variable wake;
  int open = streams;
  const Clock::time_point start = Clock::now();
  for (size_t i = 0; i < requests.size(); ++i) {
    engine.submit(requests[i], [&, i](Event&& event) {
      for (size_t t = 0; t < event.tokens.size(); ++t) times[i].push_back(ms_since(start));
      if (event.type != Event::Type::kEnd) return;
      if (event.error) fmt::print(stderr, "serving_bench: {}\n", event.error->what());
      const std::lock_guard lock(mutex);
      if (--open == 0) wake.notify_one();
    });
  }
  {
    std::unique_lock lock(mutex);
    wake.wait(lock, [&] { return open == 0; });
  }
  const double total_s = ms_since(start) / 1000;
  std::vector<double> first, gaps;
  size_t tokens = 0;
  for (const std::vector<double>& of_request : times) {
    if (of_request.empty()) continue;
    first.push_back(of_request.front());
    tokens += of_request.size();
    for (size_t t = 1; t < of_request.size(); ++t) gaps.push_back(of_request[t] - of_request[t - 1]);
  }
  const EngineStats stats = engine.stats();
  return {.requests_per_s = streams / total_s,
          .tokens_per_s = static_cast<double>(tokens) / total_s,
          .ttft_p50 = quantile(first, 0.5),
          .ttft_p95 = quantile(first, 0.95),
          .gap_p50 = quantile(gaps, 0.5),
          .gap_p95 = quantile(gaps, 0.95),
          .gap_most = quantile(gaps, 1),
          .plan_share = 100 * stats.plan_ms / stats.step_ms};
}

double median(const std::vector<Run>& runs, double Run::*field) {
  std::vector<double> values;
  for (const Run& run : runs) values.push_back(run.*field);
  return quantile(values, 0.5);
}

Options parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string arg = argv[i];
    const auto value = [&] { return i + 1 < argc ? std::string(argv[++i]) : std::string(); };
    if (arg == "--streams") {
      options.streams.clear();
      for (std::string list = value() + ","; !list.empty(); list.erase(0, list.find(',') + 1))
        options.streams.push_back(std::max(1, std::atoi(list.c_str())));
    } else if (arg == "--tokens") {
      options.tokens = std::max(1, std::atoi(value().c_str()));
    } else if (arg == "--runs") {
      options.runs = std::max(1, std::atoi(value().c_str()));
    } else if (arg == "--text") {
      options.text = true;
    } else if (arg == "--no-speculation") {
      options.speculative = false;
    } else if (options.checkpoint.empty()) {
      options.checkpoint = arg;
    } else {
      options.pictures.push_back(read_file(arg, size_t{1} << 28));
    }
  }
  const int most = *std::max_element(options.streams.begin(), options.streams.end());
  if (options.checkpoint.empty() || (!options.text && std::ssize(options.pictures) < most)) {
    fmt::print(stderr, "serving_bench: wanted CHECKPOINT and {} different pictures (or --text)\n", most);
    std::exit(2);
  }
  return options;
}

int main(int argc, char** argv) {
  const Options options = parse(argc, argv);
  fmt::print("{:>7} {:>9} {:>9} {:>12} {:>12} {:>11} {:>11} {:>12} {:>7}\n", "streams", "req/s", "tokens/s",
             "TTFT p50 ms", "TTFT p95 ms", "gap p50 ms", "gap p95 ms", "gap most ms", "plan %");
  for (const int streams : options.streams) {
    std::vector<Run> runs;
    for (int i = 0; i < options.runs; ++i) runs.push_back(run_once(options, streams));
    fmt::print("{:>7} {:>9.3f} {:>9.1f} {:>12.1f} {:>12.1f} {:>11.2f} {:>11.2f} {:>12.1f} {:>7.2f}\n", streams,
               median(runs, &Run::requests_per_s), median(runs, &Run::tokens_per_s), median(runs, &Run::ttft_p50),
               median(runs, &Run::ttft_p95), median(runs, &Run::gap_p50), median(runs, &Run::gap_p95),
               median(runs, &Run::gap_most), median(runs, &Run::plan_share));
    std::fflush(stdout);
  }
  return 0;
}

}  // namespace
}  // namespace idefics

int main(int argc, char** argv) {
  try {
    return idefics::main(argc, argv);
  } catch (const idefics::Error& e) {
    fmt::print(stderr, "serving_bench: {}\n", e.what());
    return 1;
  }
}
