#include "cli/stage_lines.h"

#include <fmt/format.h>

#include <chrono>
#include <thread>

namespace idefics::cli {

namespace {

std::string line(double ms, const char* stage, const std::string& what) {
  return fmt::format("{:>12.2f} ms  {:<12} {}", ms, stage, what.empty() ? "" : "# " + what);
}

double per_second(int64_t count, double ms) { return ms > 0 ? static_cast<double>(count) / ms * 1000 : 0; }

}  // namespace

std::string memory_line(const Engine::Memory& memory) {
  const auto mib = [](size_t bytes) { return static_cast<double>(bytes) / (1 << 20); };
  return fmt::format(
      "{:>11.1f} MiB  {:<12} # weights {:.1f}, keys and values {:.1f}, scratch {:.1f}, features of tiles up to {:.1f}, "
      "pixels up to {:.1f}\n",
      mib(memory.total()), "memory", mib(memory.weights), mib(memory.kv_cache), mib(memory.scratch),
      mib(memory.vision_cache), mib(memory.pixel_cache));
}

EngineStats stats_of_all(const Engine& engine, const Answer& answer) {
  constexpr int kPatience = 1000;  // ms; the numbers are only shown
  EngineStats stats = engine.stats();
  for (int i = 0; i < kPatience && stats.generated_tokens < answer.usage.completion_tokens; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    stats = engine.stats();
  }
  return stats;
}

std::string stage_lines(const Answer& answer, const EngineStats& stats, double load_ms) {
  const Timings& t = answer.timings;
  const Usage& u = answer.usage;
  const int computed = u.prompt_tokens - u.cached_tokens;
  std::string vision = fmt::format("{} tiles", u.tiles);
  if (stats.tiles_encoded > 0) {
    vision += fmt::format(", {} encoded, {:.2f} ms each", stats.tiles_encoded,
                          t.vision_ms / static_cast<double>(stats.tiles_encoded));
  }
  const std::vector<std::string> lines = {
      line(load_ms, "load", ""),
      line(t.preprocess_ms, "preprocess",
           fmt::format("{} prompt tokens, {} of them of pictures", u.prompt_tokens, u.image_tokens)),
      line(t.queue_ms, "queue", ""),
      line(t.vision_ms, "vision", vision),
      line(t.prefill_ms, "prefill",
           fmt::format("{} tokens, {} cached, {:.1f} tokens/s", computed, u.cached_tokens,
                       per_second(computed, t.prefill_ms))),
      line(t.ttft_ms, "first token", "since the request"),
      line(t.decode_ms, "decode",
           fmt::format("{} tokens, {:.1f} tokens/s", u.completion_tokens, t.decode_tokens_per_s)),
      line(stats.step_ms, "steps", fmt::format("{} together, {:.2f} ms of it planning", stats.steps, stats.plan_ms)),
      fmt::format("{:>15}  {:<12} # {} of {} guessed tokens were right", "", "speculation", stats.accepted_tokens,
                  stats.drafted_tokens)};
  std::string out;
  for (const std::string& text : lines) out += text.substr(0, text.find_last_not_of(' ') + 1) + "\n";
  return out;
}

}  // namespace idefics::cli
