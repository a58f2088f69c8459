#include "idefics/engine.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/sha256.h"
#include "engine/engine_parts.h"
#include "engine/event_stream.h"
#include "engine/failures.h"
#include "engine/network_loading.h"
#include "image/tiles.h"

namespace idefics {

namespace {

void check_option(const char* name, int value, int min, int max) {
  if (value >= min && value <= max) return;
  throw Error(ErrorCode::kInvalidValue, fmt::format("{} is {}, wanted {} to {}", name, value, min, max));
}

// Refuses what cannot work and fills in the defaults that do not depend on the checkpoint.
EngineOptions complete_options(EngineOptions options) {
  check_option("threads", options.num_threads, 0, 1024);
  check_option("max_num_seqs", options.max_num_seqs, 1, 1024);
  check_option("max_waiting", options.max_waiting, 0, 1 << 20);
  check_option("max_num_batched_tokens", options.max_num_batched_tokens, 1, 1 << 16);
  if (options.page_size % 64 != 0) {
    throw Error(ErrorCode::kInvalidValue, fmt::format("page_size is {}, wanted a multiple of 64", options.page_size));
  }
  check_option("page_size", options.page_size, 64, 1 << 16);
  if (options.num_threads == 0) options.num_threads = num_available_cpus();
  options.max_num_batched_tokens = std::max(options.max_num_batched_tokens, options.max_num_seqs);
  return options;
}

// No step is longer than the context.
const EngineOptions& fit_options(EngineOptions& options, const Idefics3Config& config) {
  const int most = std::max(config.get_max_seq_len(), options.max_num_seqs);
  options.max_num_batched_tokens = std::min(options.max_num_batched_tokens, most);
  return options;
}

}  // namespace

std::string_view finish_reason_name(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop: return "stop";
    case FinishReason::kLength: return "length";
    case FinishReason::kCancelled: return "cancelled";
  }
  return "";
}

// The tokenizer, a tenth of the work, is parsed while the weights are packed; and the library of digests, which reads
// its settings at its first use, is made ready for the first picture.
Engine::Parts::Parts(const std::filesystem::path& folder, const EngineOptions& wanted)
    : Parts(folder, complete_options(wanted),
            std::async(std::launch::async, [folder, decoder = wanted.picture_decoder] {
              Sha256().digest();
              return Processor::load(folder, decoder);
            })) {}

Engine::Parts::Parts(const std::filesystem::path& folder, const EngineOptions& wanted, std::future<Processor> reading)
    : options(wanted),
      kernels(kernels::choose_table()),
      pool(wanted.num_threads),
      network(load_network(folder, wanted, pool)),
      processor(reading.get()),
      pixel_table(idefics::pixel_table(processor.config().image)),
      runner(fit_options(options, network->config()), *network, kernels, pool, pixel_table),
      pixels(options.pixel_cache_bytes),
      open(std::make_shared<OpenRequests>()),
      preparation(processor, options, *open, pixels,
                  {.prepared = [this](const std::shared_ptr<Job>& job) { loop.post(job); },
                   .cut_again = [this] { loop.pixels_came(); }}),
      loop(options, *network, processor, *open, runner,
           [this](std::shared_ptr<PixelOrder> order) { preparation.post(std::move(order)); }) {}

Engine::Parts::~Parts() { preparation.stop(); }

Engine::Engine(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
Engine::Engine(Engine&&) noexcept = default;
Engine& Engine::operator=(Engine&&) noexcept = default;
Engine::~Engine() = default;

Engine Engine::load(const std::filesystem::path& folder, const EngineOptions& options) {
  return Engine(std::make_unique<Parts>(folder, options));
}

bool Engine::is_full() const {
  return parts_->open->count() >= parts_->options.max_num_seqs + parts_->options.max_waiting;
}

RequestId Engine::submit(Request request, EventSink sink) {
  const bool full = is_full();
  std::shared_ptr<Job> job = parts_->open->open(std::move(request), std::move(sink));
  const RequestId id = job->id;
  if (full) {
    parts_->open->end(
        *job, Error(ErrorCode::kOverloaded,
                    fmt::format("engine: {} requests wait already; try again later", parts_->options.max_waiting)));
    return id;
  }
  try {
    parts_->preparation.post(job);
  } catch (...) {
    parts_->open->end(*job, current_error());
  }
  return id;
}

EventStream Engine::submit(Request request) {
  auto state = std::make_shared<EventStream::State>();
  state->open = parts_->open;
  state->id = submit(std::move(request), [state](Event&& event) { state->push(std::move(event)); });
  return EventStream(std::move(state));
}

bool Engine::cancel(RequestId id) { return parts_->open->cancel(id); }

Answer Engine::generate(const Request& request, const Observer& observer) {
  constexpr int kPollMs = 20;
  EventStream stream = submit(request);
  Answer answer;
  const auto add_text = [&](const Event& event) {
    answer.choices[static_cast<size_t>(event.choice)].text += event.text;
    if (observer.text && event.choice == 0 && !event.text.empty()) observer.text(event.text);
  };
  while (!stream.ended()) {
    std::optional<Event> event = stream.next(observer.cancelled ? kPollMs : -1);
    if (observer.cancelled && observer.cancelled()) cancel(stream.id());
    if (!event) continue;
    if (std::ssize(answer.choices) <= event->choice) answer.choices.resize(static_cast<size_t>(event->choice) + 1);
    Choice& choice = answer.choices[static_cast<size_t>(event->choice)];
    switch (event->type) {
      case Event::Type::kPrompt:
        answer.prompt_token_ids = std::move(event->prompt_token_ids);
        answer.seed = event->seed;
        break;
      case Event::Type::kTiles:
        if (observer.tiles) observer.tiles(event->tiles_done, event->usage.tiles);
        break;
      case Event::Type::kTokens:
        for (const TokenInfo& token : event->tokens) choice.token_ids.push_back(token.id);
        if (request.logprobs) std::move(event->tokens.begin(), event->tokens.end(), std::back_inserter(choice.tokens));
        add_text(*event);
        break;
      case Event::Type::kChoice:
        choice.finish_reason = event->finish_reason;
        add_text(*event);
        break;
      case Event::Type::kEnd:
        if (event->error && event->error->code() != ErrorCode::kCancelled) throw *event->error;
        if (event->error) {
          for (Choice& open : answer.choices) open.finish_reason = FinishReason::kCancelled;
        }
        answer.usage = event->usage;
        answer.timings = event->timings;
        answer.prompt_logprobs = std::move(event->prompt_logprobs);
        break;
    }
  }
  return answer;
}

SamplingParams Engine::default_sampling() const {
  const GenerationConfig& file = parts_->processor.parts().generation;
  SamplingParams params;
  params.repetition_penalty = file.repetition_penalty.value_or(1);
  if (!file.do_sample.value_or(false)) return params;
  params.temperature = file.temperature.value_or(1);
  params.top_k = file.top_k.value_or(50);
  params.top_p = file.top_p.value_or(1);
  return params;
}

const Processor& Engine::processor() const { return parts_->processor; }
const Idefics3Config& Engine::config() const { return parts_->network->config(); }
int Engine::max_model_len() const { return config().get_max_seq_len(); }
std::string_view Engine::kernels() const { return parts_->kernels.name; }
std::string_view Engine::dtype() const { return kernels::name_of(parts_->network->format()); }
std::string_view Engine::kv_cache_dtype() const {
  switch (parts_->runner.kv_shape().dtype) {
    case KvType::kF32: return "f32";
    case KvType::kBf16: return "bf16";
    case KvType::kQ8: return "q8";
  }
  return "";
}
bool Engine::skips_special_tokens() const { return !writes_special_tokens(parts_->processor); }
const std::vector<std::string>& Engine::nonfinite() const { return parts_->network->nonfinite(); }
Engine::Memory Engine::memory() const {
  return {.weights = parts_->network->weight_bytes(),
          .kv_cache = parts_->runner.kv_bytes(),
          .scratch = parts_->runner.scratch_bytes(),
          .vision_cache = parts_->options.vision_cache_bytes,
          .pixel_cache = parts_->options.pixel_cache_bytes};
}

EngineStats Engine::stats() const {
  EngineStats stats;
  parts_->loop.report(stats);
  const OpenRequests::Counters counters = parts_->open->counters();
  stats.requests = counters.opened;
  stats.cancelled = counters.cancelled;
  stats.failed = counters.failed;
  stats.refused = counters.refused;
  return stats;
}

}  // namespace idefics
