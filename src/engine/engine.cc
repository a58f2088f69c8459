#include "idefics/engine.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <random>

#include "base/check.h"
#include "engine/engine_parts.h"
#include "engine/output_text.h"
#include "engine/sampler.h"
#include "image/tiles.h"
#include "processor/parts.h"

namespace idefics {

namespace {

class Stopwatch {
 public:
  double ms() const {
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

void check_option(const char* name, int value, int min, int max) {
  if (value >= min && value <= max) return;
  throw Error(ErrorCode::kInvalidValue, fmt::format("{} is {}, wanted {} to {}", name, value, min, max));
}

const EngineOptions& check_options(const EngineOptions& options) {
  check_option("threads", options.num_threads, 0, 1024);
  check_option("prefill_chunk", options.prefill_chunk, 1, 1 << 16);
  return options;
}

// The type in which the weights are stored with the most bytes decides.
Format choose_format(ComputeType wanted, const Checkpoint& checkpoint) {
  switch (wanted) {
    case ComputeType::kAuto: break;
    case ComputeType::kF32: return Format::kF32;
    case ComputeType::kBf16: return Format::kBf16;
    case ComputeType::kInt8: return Format::kInt8;
    case ComputeType::kQ8: return Format::kQ8;
    case ComputeType::kQ4: return Format::kQ4;
  }
  const auto bytes = checkpoint.totals().bytes;
  const auto most =
      std::max_element(bytes.begin(), bytes.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  return most != bytes.end() && most->first == StoredDType::kBf16 ? Format::kBf16 : Format::kF32;
}

void refuse_nonfinite(const std::vector<std::string>& names, const std::filesystem::path& folder) {
  if (names.empty()) return;
  throw Error(ErrorCode::kBadModel,
              fmt::format("{}: {} {} NaN or Inf; the file is damaged (--allow-nonfinite loads it all the same)",
                          folder.string(), names.front(),
                          names.size() == 1 ? "has" : fmt::format("and {} more tensors have", names.size() - 1)));
}

std::unique_ptr<Network> load_network(const std::filesystem::path& folder, const EngineOptions& options,
                                      ThreadPool& pool) {
  PipelineConfig pipeline;
  pipeline.model.model_path = folder;
  pipeline.model.huggingface_config = HuggingFaceConfig::load(folder);
  pipeline.model.max_length = options.max_model_len;
  Idefics3Config config = Idefics3Config::initialize(pipeline);
  check_processor_config(load_processor_config(folder), config);
  const Checkpoint checkpoint = Checkpoint::open(folder);
  checkpoint.verify(config);
  config.finalize(*pipeline.model.huggingface_config, checkpoint.state_dict(), ReturnLogits::kLastToken);
  auto network = std::make_unique<Network>(pool, checkpoint, config, choose_format(options.dtype, checkpoint));
  if (!options.allow_nonfinite) refuse_nonfinite(network->nonfinite(), folder);
  return network;
}

// DocTags models write their structure as special tokens, which are the answer and not decoration.
bool writes_special_tokens(const Tokenizer& tokenizer) {
  const auto id = tokenizer.find_token("<doctag>");
  return id && tokenizer.is_special(*id);
}

// One request on its way through the model.
class Generation {
 public:
  Generation(Engine::Parts& engine, const Request& request, const Observer& observer)
      : engine_(engine), request_(request), observer_(observer) {}

  Answer run() {
    const Tokenizer& tokenizer = engine_.processor.parts().tokenizer;
    const std::vector<int32_t> stop_ids = collect_stop_ids();
    answer_.seed = request_.sampling.seed ? *request_.sampling.seed : std::random_device{}();
    Sampler sampler(request_.sampling, engine_.processor.vocab_size(), stop_ids, answer_.seed);

    prompt_ = engine_.processor.parts().prompt(request_.messages, request_.prompt, &engine_.pool);
    answer_.prompt_token_ids = prompt_.ids;
    answer_.image_tokens = prompt_.num_image_tokens;
    const int max_new = check_length();
    answer_.token_ids.reserve(static_cast<size_t>(max_new));
    answer_.timings.preprocess_ms = clock_.ms();

    encode_tiles();
    prefill();

    const bool skip = request_.skip_special_tokens.value_or(!writes_special_tokens(tokenizer));
    OutputText text(tokenizer, skip, request_.sampling.stop);
    double first_ms = 0;
    answer_.finish_reason = FinishReason::kLength;
    while (!cancelled_) {
      const int32_t id = sampler.choose(prompt_.ids, answer_.token_ids, engine_.logits);
      answer_.token_ids.push_back(id);
      if (answer_.token_ids.size() == 1) answer_.timings.ttft_ms = first_ms = clock_.ms();
      if (std::binary_search(stop_ids.begin(), stop_ids.end(), id)) {
        answer_.finish_reason = FinishReason::kStop;  // the stop token itself is no text
        break;
      }
      emit(text.push(id));
      if (text.stopped()) {
        answer_.finish_reason = FinishReason::kStop;
        break;
      }
      if (std::ssize(answer_.token_ids) >= max_new) break;
      if (is_cancelled()) break;
      step(id);
    }
    if (cancelled_) answer_.finish_reason = FinishReason::kCancelled;
    emit(text.finish());
    const auto decoded = static_cast<double>(answer_.token_ids.size()) - 1;
    if (decoded > 0) {
      answer_.timings.decode_ms = clock_.ms() - first_ms;
      answer_.timings.decode_tokens_per_s = 1000 * decoded / answer_.timings.decode_ms;
    }
    return std::move(answer_);
  }

 private:
  std::vector<int32_t> collect_stop_ids() const {
    std::vector<int32_t> ids = request_.sampling.stop_token_ids;
    if (!request_.sampling.ignore_eos)
      ids.insert(ids.end(), engine_.processor.stop_ids().begin(), engine_.processor.stop_ids().end());
    std::sort(ids.begin(), ids.end());
    return ids;
  }

  // How many tokens may be generated.
  int check_length() const {
    const int length = static_cast<int>(prompt_.ids.size()), most = engine_.network->config().get_max_seq_len();
    if (length >= most) {
      throw Error(ErrorCode::kContextLengthExceeded,
                  fmt::format("prompt: {} tokens ({} of them for {} image tiles) leave no room in the context of {}; "
                              "shorten the text, send fewer or "
                              "smaller images, or lower max_tiles",
                              length, prompt_.num_image_tokens, prompt_.tiles.size(), most));
    }
    return request_.sampling.max_tokens > 0 ? std::min(request_.sampling.max_tokens, most - length) : most - length;
  }

  // Tile after tile through the same buffers.
  void encode_tiles() {
    const Stopwatch clock;
    const Network& network = *engine_.network;
    const int64_t S = network.config().image_seq_len(), E = network.config().text_config.hidden_size,
                  total = std::ssize(prompt_.tiles);
    features_.resize(static_cast<size_t>(total * S * E));
    for (int64_t i = 0; i < total && !is_cancelled(); ++i) {
      const TileSpan& span = prompt_.tiles[static_cast<size_t>(i)];
      const PromptImage& image = prompt_.images[static_cast<size_t>(span.image)];
      network.encode(engine_.exec(), {image.tile(span.tile), engine_.pixel_table},
                     Matrix<float>(features_.data() + i * S * E, S, E));
      if (observer_.tiles) observer_.tiles(static_cast<int>(i) + 1, static_cast<int>(total));
    }
    answer_.tiles = static_cast<int>(total);
    answer_.timings.vision_ms = clock.ms();
  }

  void prefill() {
    const Stopwatch clock;
    const int64_t length = std::ssize(prompt_.ids), chunk = engine_.options.prefill_chunk;
    for (int64_t first = 0; first < length && !is_cancelled(); first += chunk) {
      run_rows(std::span(prompt_.ids)
                   .subspan(static_cast<size_t>(first), static_cast<size_t>(std::min(chunk, length - first))),
               first, first + chunk >= length);
    }
    answer_.timings.prefill_ms = clock.ms();
  }

  // The token after `id`.
  void step(int32_t id) {
    run_rows(std::span(&id, 1), std::ssize(prompt_.ids) + std::ssize(answer_.token_ids) - 1, true);
  }

  // Rows [first, first + ids.size()) of the sequence; the last one's logits if they are wanted.
  void run_rows(std::span<const int32_t> ids, int64_t first, bool want_logits) {
    const Network& network = *engine_.network;
    const int64_t T = std::ssize(ids), E = network.config().text_config.hidden_size;
    const Matrix<float> x(engine_.x.data(), T, E);
    network.embed(ids, x);
    place_features(first, x);
    const SequenceRows rows{0, static_cast<int32_t>(T), static_cast<int32_t>(first), engine_.pages};
    network.run(engine_.exec(), std::span(&rows, 1), *engine_.cache, x);
    if (!want_logits) return;
    const auto last = static_cast<int32_t>(T - 1);
    network.logits(engine_.exec(), x, std::span(&last, 1),
                   Matrix<float>(engine_.logits.data(), 1, std::ssize(engine_.logits)));
  }

  // Writes features over the rows of image tokens. Spans belong to the prompt alone: an image token that the model
  // generates keeps its ordinary embedding.
  void place_features(int64_t first, Matrix<float> x) const {
    const int64_t S = engine_.network->config().image_seq_len(), E = x.cols();
    for (size_t i = 0; i < prompt_.tiles.size(); ++i) {
      const int64_t begin = std::max<int64_t>(prompt_.tiles[i].first, first),
                    end = std::min<int64_t>(prompt_.tiles[i].first + S, first + x.rows());
      if (begin >= end) continue;
      const float* from = features_.data() + (static_cast<int64_t>(i) * S + begin - prompt_.tiles[i].first) * E;
      for (int64_t t = begin; t < end; ++t, from += E) std::copy_n(from, E, x.row(t - first));
    }
  }

  bool is_cancelled() {
    cancelled_ = cancelled_ || (observer_.cancelled && observer_.cancelled());
    return cancelled_;
  }

  void emit(const std::string& delta) {
    if (delta.empty()) return;
    answer_.text += delta;
    if (observer_.text) observer_.text(delta);
  }

  Engine::Parts& engine_;
  const Request& request_;
  const Observer& observer_;
  Stopwatch clock_;
  Prompt prompt_;
  std::vector<float> features_;  // [tiles, S, E]
  Answer answer_;
  bool cancelled_ = false;
};

}  // namespace

std::string_view finish_reason_name(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop: return "stop";
    case FinishReason::kLength: return "length";
    case FinishReason::kCancelled: return "cancelled";
  }
  return "";
}

// The tokenizer, a tenth of the work, is parsed while the weights are packed.
Engine::Parts::Parts(const std::filesystem::path& folder, const EngineOptions& wanted)
    : Parts(folder, check_options(wanted), std::async(std::launch::async, Processor::load, folder)) {}

Engine::Parts::Parts(const std::filesystem::path& folder, const EngineOptions& wanted, std::future<Processor> reading)
    : options(wanted),
      kernels(kernels::choose_table()),
      pool(wanted.num_threads > 0 ? wanted.num_threads : num_available_cpus()),
      network(load_network(folder, wanted, pool)),
      processor(reading.get()) {
  const Idefics3Config& config = network->config();
  const KvCache::Shape shape = Network::kv_shape(config, network->dtype());
  const int64_t num_pages = (config.get_max_seq_len() + shape.page_size - 1) / shape.page_size;
  options.prefill_chunk = std::min(options.prefill_chunk, config.get_max_seq_len());
  arena = Arena(Network::scratch_bytes(network->config(), network->format(), options.prefill_chunk, num_pages, 1),
                "scratch");
  cache = std::make_unique<KvCache>(shape, num_pages);
  for (PageId page = 0; page < num_pages; ++page) pages.push_back(page);
  x.resize(static_cast<size_t>(options.prefill_chunk) * static_cast<size_t>(config.text_config.hidden_size));
  logits.resize(static_cast<size_t>(config.text_config.vocab_size));
  pixel_table = idefics::pixel_table(processor.config().image);
}

Engine::Engine(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
Engine::Engine(Engine&&) noexcept = default;
Engine& Engine::operator=(Engine&&) noexcept = default;
Engine::~Engine() = default;

Engine Engine::load(const std::filesystem::path& folder, const EngineOptions& options) {
  return Engine(std::make_unique<Parts>(folder, options));
}

Answer Engine::generate(const Request& request, const Observer& observer) {
  return Generation(*parts_, request, observer).run();
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
const std::vector<std::string>& Engine::nonfinite() const { return parts_->network->nonfinite(); }
Engine::Memory Engine::memory() const {
  return {.weights = parts_->network->weight_bytes(),
          .kv_cache = parts_->cache->bytes(),
          .scratch = parts_->arena.capacity()};
}

}  // namespace idefics
