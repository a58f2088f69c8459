#include "measurement/measurement.h"

#include <fmt/format.h>

#include <algorithm>
#include <span>

#include "engine/engine_parts.h"
#include "engine/stopwatch.h"
#include "image/codec.h"
#include "measurement/memory.h"
#include "measurement/test_picture.h"
#include "measurement/work.h"

namespace idefics {

namespace {

// Nobody else, and nothing that spares work: every run does all of it.
EngineOptions alone(EngineOptions options) {
  options.max_num_seqs = 1;
  options.speculative = false;
  options.enable_prefix_caching = false;
  options.vision_cache_bytes = 0;
  return options;
}

Request picture_request(const MeasurementOptions& options, const std::string& picture) {
  Request request;
  request.messages = {{"user", {ContentPart::of_image(picture), ContentPart::of_text("Can you describe this image?")}}};
  request.prompt.images = options.images;
  request.sampling.max_tokens = options.max_tokens;
  request.sampling.ignore_eos = true;
  return request;
}

// A prompt of 512 tokens, or as many as the context holds with one to answer. Which ones makes no difference.
Request text_request(const Engine& engine) {
  const int count = std::clamp(engine.max_model_len() - 1, 1, 512), vocabulary = engine.processor().vocab_size();
  std::vector<int32_t> ids;
  for (int i = 0; i < count; ++i) ids.push_back(static_cast<int32_t>(int64_t{7919} * i % vocabulary));
  Request request;
  request.token_ids = std::move(ids);
  request.sampling.max_tokens = 1;
  return request;
}

// One answer to warm up, then those that count.
std::vector<Answer> answers(Engine& engine, const Request& request, int runs, const std::string& what,
                            const std::function<void(const std::string&)>& say) {
  std::vector<Answer> out;
  for (int i = 0; i <= runs; ++i) {
    say(i == 0 ? fmt::format("{}: warming up", what) : fmt::format("{}: run {} of {}", what, i, runs));
    Answer answer = engine.generate(request);
    if (i > 0) out.push_back(std::move(answer));
  }
  return out;
}

std::vector<double> times(const std::vector<Answer>& answers, double Timings::*stage) {
  std::vector<double> out;
  for (const Answer& answer : answers) out.push_back(answer.timings.*stage);
  return out;
}

std::optional<double> peak_operations(const Peaks& peaks, std::string_view dtype) {
  if (dtype == "f32") return peaks.f32_flops;
  return dtype == "int8" ? peaks.int8_ops : peaks.bf16_flops;
}

// Turns answers into stages.
class StageMaker {
 public:
  StageMaker(Engine& engine, const Peaks& peaks)
      : engine_(engine), compute_(peak_operations(peaks, engine.dtype())), read_(peaks.read_bytes) {}

  // `encoded`: tiles of a run; equal ones of a picture are encoded once.
  std::vector<Stage> of_picture(const std::vector<Answer>& answers, int64_t encoded) const {
    const Usage& usage = answers.front().usage;
    const int64_t vision = encoded * tile_flops(engine_.config());
    std::vector<Stage> out;
    out.push_back({.name = "preprocess", .ms = times(answers, &Timings::preprocess_ms)});
    out.push_back(computed("vision", times(answers, &Timings::vision_ms), "tile", encoded, vision));
    out.push_back(prefill("image prefill", answers));
    const int64_t both = vision + prompt_flops(engine_.config(), usage.prompt_tokens);
    out.push_back(computed("first token", times(answers, &Timings::ttft_ms), "", 0, both));
    if (usage.completion_tokens > 1) out.push_back(decode(answers));
    return out;
  }

  Stage prefill(const std::string& name, const std::vector<Answer>& answers) const {
    const int64_t tokens = answers.front().usage.prompt_tokens;
    return computed(name, times(answers, &Timings::prefill_ms), "token", tokens,
                    prompt_flops(engine_.config(), tokens));
  }

 private:
  Stage computed(const std::string& name, std::vector<double> ms, const std::string& unit, int64_t units,
                 int64_t flops) const {
    return {.name = name,
            .ms = std::move(ms),
            .unit = unit,
            .units = static_cast<double>(units),
            .kind = Stage::Work::kOperations,
            .work = static_cast<double>(flops),
            .bound = compute_};
  }

  // From the first token to the last; the context grows meanwhile, so its middle counts.
  Stage decode(const std::vector<Answer>& answers) const {
    const Usage& usage = answers.front().usage;
    const int64_t tokens = usage.completion_tokens - 1, context = usage.prompt_tokens + usage.completion_tokens / 2;
    return {.name = "decode",
            .ms = times(answers, &Timings::decode_ms),
            .unit = "token",
            .units = static_cast<double>(tokens),
            .kind = Stage::Work::kBytes,
            .work = static_cast<double>(
                tokens * decode_bytes(*engine_.parts().network, engine_.parts().runner.kv_shape(), context)),
            .bound = read_};
  }

  Engine& engine_;
  std::optional<double> compute_;
  double read_;
};

}  // namespace

double Stage::median_ms() const {
  std::vector<double> sorted = ms;
  std::sort(sorted.begin(), sorted.end());
  const size_t n = sorted.size();
  return (sorted[(n - 1) / 2] + sorted[n / 2]) / 2;
}

std::optional<double> Stage::units_per_s() const {
  if (unit.empty()) return std::nullopt;
  return units / median_ms() * 1000;
}

std::optional<double> Stage::work_per_s() const {
  if (kind == Work::kNone) return std::nullopt;
  return work / median_ms() * 1000;
}

std::optional<double> Stage::share() const {
  const std::optional<double> rate = work_per_s();
  if (!rate || !bound) return std::nullopt;
  return *rate / *bound;
}

Measurement measure(const MeasurementOptions& options, const std::function<void(const std::string&)>& say) {
  const std::string picture = options.picture ? *options.picture : make_test_picture(1920, 1080);
  const Image decoded = decode_image(std::as_bytes(std::span(picture)));
  const int threads = options.engine.num_threads > 0 ? options.engine.num_threads : num_available_cpus();
  say("calibrating");
  Measurement out{.calibration = calibrate(kernels::choose_table(), threads),
                  .picture_width = decoded.width,
                  .picture_height = decoded.height,
                  .runs = options.runs};
  const bool knows_peak = restart_peak_rss();

  say("loading " + options.folder.string());
  const Stopwatch loading;
  Engine engine = Engine::load(options.folder, alone(options.engine));
  out.stages.push_back({.name = "load",
                        .ms = {loading.ms()},
                        .kind = Stage::Work::kBytes,
                        .work = static_cast<double>(engine.memory().weights)});
  out.kernels = engine.kernels();
  out.dtype = engine.dtype();

  const std::vector<Answer> pictures = answers(engine, picture_request(options, picture), options.runs, "picture", say);
  const int64_t encoded = engine.stats().tiles_encoded / (options.runs + 1);
  const std::vector<Answer> texts = answers(engine, text_request(engine), options.runs, "text", say);
  if (knows_peak) out.peak_rss = peak_rss_bytes();

  const Usage& usage = pictures.front().usage;
  out.tiles = usage.tiles;
  out.prompt_tokens = usage.prompt_tokens;
  out.generated_tokens = usage.completion_tokens;
  const StageMaker maker(engine, out.calibration.all);
  for (Stage& stage : maker.of_picture(pictures, encoded)) out.stages.push_back(std::move(stage));
  out.stages.push_back(maker.prefill("text prefill", texts));
  return out;
}

}  // namespace idefics
