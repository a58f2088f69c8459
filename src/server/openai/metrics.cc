#include "server/openai/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <map>
#include <mutex>

namespace idefics::openai {

namespace {

using prometheus::BuildCounter;
using prometheus::BuildGauge;
using prometheus::BuildHistogram;
using prometheus::Counter;
using prometheus::Gauge;
using prometheus::Histogram;
using prometheus::Labels;

const Histogram::BucketBoundaries kSeconds = {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5,
                                              0.75,  1,     2.5,  5,    7.5,  10,   20,   40,  80,   160};
const Histogram::BucketBoundaries kTokenSeconds = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1,
                                                   0.15,  0.2,    0.3,   0.4,  0.5,   0.75, 1,     2.5};
const Histogram::BucketBoundaries kTokens = {1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000};

}  // namespace

struct Metrics::Families {
  explicit Families(Labels labels) : all(std::move(labels)) {}

  Counter& counter(const std::string& name, const std::string& help, const Labels& more = {}) {
    return BuildCounter().Name(name).Help(help).Labels(all).Register(registry).Add(more);
  }
  Gauge& gauge(const std::string& name, const std::string& help) {
    return BuildGauge().Name(name).Help(help).Labels(all).Register(registry).Add({});
  }
  Histogram& histogram(const std::string& name, const std::string& help, const Histogram::BucketBoundaries& buckets) {
    return BuildHistogram().Name(name).Help(help).Labels(all).Register(registry).Add({}, buckets);
  }
  // Kept, since looking a counter up by its name and labels takes longer than refusing a request.
  Counter& responses(int status) {
    const std::lock_guard lock(responses_mutex);
    Counter*& found = responses_by_status[status];
    if (found == nullptr)
      found = &counter("idefics:http_responses_total", "Responses; status 0: the client went away first",
                       {{"status", std::to_string(status)}});
    return *found;
  }
  // The engine's counters only grow; ours follow them. Called under the lock.
  static void follow(Counter& counter, double value) {
    if (value > counter.Value()) counter.Increment(value - counter.Value());
  }

  const Labels all;
  prometheus::Registry registry;
  std::mutex mutex, responses_mutex;
  std::map<int, Counter*> responses_by_status;

  Gauge& running = gauge("vllm:num_requests_running", "Sequences that are being computed");
  Gauge& waiting = gauge("vllm:num_requests_waiting", "Requests that wait for their first step");
  Gauge& cache_usage = gauge("vllm:kv_cache_usage_perc", "Share of the pages of the cache that are in use, 0 to 1");
  Gauge& connections = gauge("idefics:connections", "Open connections");
  Gauge& stalled = gauge("idefics:engine_seconds_since_step", "Since the last step while there was work; 0 when idle");
  Counter& prompt_tokens = counter("vllm:prompt_tokens_total", "Tokens of prompts");
  Counter& generation_tokens = counter("vllm:generation_tokens_total", "Tokens of answers");
  Counter& prefix_queries =
      counter("vllm:prefix_cache_queries_total", "Tokens of prompts that were looked for in the cache");
  Counter& prefix_hits = counter("vllm:prefix_cache_hits_total", "Tokens of prompts that the cache had");
  Counter& preemptions = counter("vllm:num_preemptions_total", "Sequences that gave their pages back and began again");
  Counter& drafted = counter("vllm:spec_decode_num_draft_tokens_total", "Tokens that were guessed");
  Counter& accepted = counter("vllm:spec_decode_num_accepted_tokens_total", "Guessed tokens that were right");
  Counter& tiles_encoded = counter("idefics:tiles_encoded_total", "Tiles that the vision tower computed");
  Counter& tiles_cached = counter("idefics:tiles_cached_total", "Tiles whose features were at hand");
  Counter& steps = counter("idefics:engine_steps_total", "Steps of the engine");
  Counter& step_seconds = counter("idefics:engine_step_seconds_total", "Time in steps of the engine");
  Counter& image_tokens = counter("idefics:image_tokens_total", "Tokens of prompts that carry pictures");
  Counter& stop = counter("vllm:request_success_total", "Choices that ended", {{"finished_reason", "stop"}});
  Counter& length = counter("vllm:request_success_total", "Choices that ended", {{"finished_reason", "length"}});
  Counter& abort = counter("vllm:request_success_total", "Choices that ended", {{"finished_reason", "abort"}});
  Histogram& ttft = histogram("vllm:time_to_first_token_seconds", "From a request to its first token", kSeconds);
  Histogram& gap =
      histogram("vllm:inter_token_latency_seconds", "Mean time between two tokens of an answer", kTokenSeconds);
  Histogram& per_token = histogram("vllm:request_time_per_output_token_seconds",
                                   "Time of an answer for each of its tokens behind the first", kTokenSeconds);
  Histogram& e2e = histogram("vllm:e2e_request_latency_seconds", "From a request to the end of its answer", kSeconds);
  Histogram& queue = histogram("vllm:request_queue_time_seconds", "Waiting for the first step", kSeconds);
  Histogram& prefill = histogram("vllm:request_prefill_time_seconds", "Steps over the prompt", kSeconds);
  Histogram& decode = histogram("vllm:request_decode_time_seconds", "From the first token to the last", kSeconds);
  Histogram& preprocess =
      histogram("idefics:request_preprocess_time_seconds", "Template, pictures, tokenizer", kSeconds);
  Histogram& vision = histogram("idefics:request_vision_time_seconds", "Vision tower and connector", kSeconds);
  Histogram& request_prompt = histogram("vllm:request_prompt_tokens", "Tokens of a prompt", kTokens);
  Histogram& request_generation = histogram("vllm:request_generation_tokens", "Tokens of an answer", kTokens);
};

Metrics::Metrics(const std::string& model_name, const std::string& version)
    : families_(std::make_unique<Families>(Labels{{"model_name", model_name}, {"engine", "0"}})) {
  BuildGauge()
      .Name("idefics:build_info")
      .Help("The version")
      .Register(families_->registry)
      .Add({{"version", version}})
      .Set(1);
}
Metrics::~Metrics() = default;

void Metrics::observe(const GenerationEnd& end, double seconds) {
  Families& f = *families_;
  for (const FinishReason reason : end.reasons) (reason == FinishReason::kStop ? f.stop : f.length).Increment();
  if (end.gone) f.abort.Increment();
  if (end.error || end.gone) return;
  const Timings& t = end.timings;
  f.image_tokens.Increment(end.usage.image_tokens);
  f.ttft.Observe(t.ttft_ms / 1000);
  f.e2e.Observe(seconds);
  f.queue.Observe(t.queue_ms / 1000);
  f.prefill.Observe(t.prefill_ms / 1000);
  f.decode.Observe(t.decode_ms / 1000);
  f.preprocess.Observe(t.preprocess_ms / 1000);
  f.vision.Observe(t.vision_ms / 1000);
  f.request_prompt.Observe(end.usage.prompt_tokens);
  f.request_generation.Observe(end.usage.completion_tokens);
  if (t.decode_tokens_per_s > 0) {
    f.gap.Observe(1 / t.decode_tokens_per_s);
    f.per_token.Observe(1 / t.decode_tokens_per_s);
  }
}

void Metrics::count_response(int status) { families_->responses(status).Increment(); }

std::string Metrics::text(const EngineStats* stats, int connections) {
  Families& f = *families_;
  const std::lock_guard lock(f.mutex);
  f.connections.Set(connections);
  if (stats != nullptr) {
    f.running.Set(stats->running);
    f.waiting.Set(stats->waiting);
    f.cache_usage.Set(stats->pages > 0 ? static_cast<double>(stats->pages_used) / static_cast<double>(stats->pages)
                                       : 0);
    f.stalled.Set(stats->since_step_ms / 1000);
    Families::follow(f.prompt_tokens, static_cast<double>(stats->prompt_tokens));
    Families::follow(f.generation_tokens, static_cast<double>(stats->generated_tokens));
    Families::follow(f.prefix_queries, static_cast<double>(stats->prompt_tokens));
    Families::follow(f.prefix_hits, static_cast<double>(stats->cached_tokens));
    Families::follow(f.preemptions, static_cast<double>(stats->preemptions));
    Families::follow(f.drafted, static_cast<double>(stats->drafted_tokens));
    Families::follow(f.accepted, static_cast<double>(stats->accepted_tokens));
    Families::follow(f.tiles_encoded, static_cast<double>(stats->tiles_encoded));
    Families::follow(f.tiles_cached, static_cast<double>(stats->tiles_cached));
    Families::follow(f.steps, static_cast<double>(stats->steps));
    Families::follow(f.step_seconds, stats->step_ms / 1000);
  }
  return prometheus::TextSerializer().Serialize(f.registry.Collect());
}

}  // namespace idefics::openai
