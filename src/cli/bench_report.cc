#include "cli/bench_report.h"

#include <fmt/format.h>

#include "base/utf8.h"

namespace idefics::cli {

namespace {

json::value or_null(const std::optional<double>& value) { return value ? json::value(*value) : json::value(nullptr); }

json::object peaks_json(const Peaks& peaks) {
  return {{"f32_flops", or_null(peaks.f32_flops)},
          {"bf16_flops", or_null(peaks.bf16_flops)},
          {"int8_ops", or_null(peaks.int8_ops)},
          {"read_bytes", peaks.read_bytes}};
}

// "image prefill" -> "image_prefill".
std::string key_of(std::string name) {
  for (char& c : name) c = c == ' ' ? '_' : c;
  return name;
}

json::object stage_json(const Stage& stage) {
  json::object out = {{"ms", stage.median_ms()}, {"runs_ms", json::value_from(stage.ms)}};
  if (!stage.unit.empty()) {
    out[stage.unit + "s"] = static_cast<int64_t>(stage.units);
    out["ms_per_" + stage.unit] = stage.median_ms() / stage.units;
    out[stage.unit + "s_per_s"] = *stage.units_per_s();
  }
  if (stage.kind != Stage::Work::kNone) {
    const std::string what = stage.kind == Stage::Work::kBytes ? "bytes" : "flops";
    out[what] = static_cast<int64_t>(stage.work);
    out[what + "_per_s"] = *stage.work_per_s();
    out["bound_" + what + "_per_s"] = or_null(stage.bound);
    out["share_of_bound"] = or_null(stage.share());
  }
  return out;
}

// Three digits that count.
std::string digits(double value) {
  return fmt::format(fmt::runtime(value < 10 ? "{:.2f}" : value < 100 ? "{:.1f}" : "{:.0f}"), value);
}

std::string giga(const std::optional<double>& value, const char* unit) {
  return value ? digits(*value / 1e9) + " " + unit : "-";
}

std::string counted(int count, const char* what) { return fmt::format("{} {}{}", count, what, count == 1 ? "" : "s"); }

std::string peak_row(const char* name, const std::optional<double>& one, const std::optional<double>& all,
                     const char* unit, bool several) {
  std::string out = fmt::format("{:<16}{:>16}", name, giga(one, unit));
  if (several) out += fmt::format("{:>16}", giga(all, unit));
  return out + "\n";
}

std::string peaks_text(const Calibration& c) {
  const bool several = c.threads > 1;
  std::string out = fmt::format("{:<16}{:>16}", "peak", "1 thread");
  if (several) out += fmt::format("{:>16}", counted(c.threads, "thread"));
  return out + "\n" + peak_row("float32", c.one.f32_flops, c.all.f32_flops, "GFLOP/s", several) +
         peak_row("bfloat16", c.one.bf16_flops, c.all.bf16_flops, "GFLOP/s", several) +
         peak_row("int8", c.one.int8_ops, c.all.int8_ops, "GOP/s", several) +
         peak_row("reading", c.one.read_bytes, c.all.read_bytes, "GB/s", several);
}

std::string row(const std::string& name, const std::string& time, const std::string& each, const std::string& speed,
                const std::string& rate, const std::string& share) {
  return fmt::format("{:<16}{:>12}{:>14}{:>18}{:>16}{:>10}\n", name, time, each, speed, rate, share);
}

std::string stage_row(const Stage& stage) {
  const std::optional<double> speed = stage.units_per_s(), share = stage.share();
  return row(stage.name, digits(stage.median_ms()) + " ms", speed ? digits(1000 / *speed) + " ms" : "-",
             speed ? fmt::format("{} {}s/s", digits(*speed), stage.unit) : "-",
             giga(stage.work_per_s(), stage.kind == Stage::Work::kBytes ? "GB/s" : "GFLOP/s"),
             share ? fmt::format("{:.0f} %", *share * 100) : "-");
}

}  // namespace

json::object bench_json(const BenchTitle& title, const Measurement& m) {
  json::object stages;
  for (const Stage& stage : m.stages) stages[key_of(stage.name)] = stage_json(stage);
  return {{"model", repair_utf8(title.model)},
          {"kernels", m.kernels},
          {"dtype", m.dtype},
          {"threads", m.calibration.threads},
          {"runs", m.runs},
          {"image", json::object{{"file", title.picture.empty() ? json::value(nullptr)
                                                                : json::value(repair_utf8(title.picture))},
                                 {"width", m.picture_width},
                                 {"height", m.picture_height},
                                 {"tiles", m.tiles}}},
          {"prompt_tokens", m.prompt_tokens},
          {"generated_tokens", m.generated_tokens},
          {"peaks",
           json::object{{"one_thread", peaks_json(m.calibration.one)}, {"all_threads", peaks_json(m.calibration.all)}}},
          {"stages", std::move(stages)},
          {"peak_rss_bytes", m.peak_rss ? json::value(*m.peak_rss) : json::value(nullptr)}};
}

std::string bench_text(const BenchTitle& title, const Measurement& m) {
  std::string out = fmt::format(
      "model     {}\ncomputes  {}, {}, {}; median of {}\nasked     {} of {} x {}, {} tiles; {} prompt tokens, {} "
      "new ones\n\n",
      title.model, m.kernels, counted(m.calibration.threads, "thread"), m.dtype, counted(m.runs, "run"),
      title.picture.empty() ? "a made picture" : title.picture, m.picture_width, m.picture_height, m.tiles,
      m.prompt_tokens, m.generated_tokens);
  out += peaks_text(m.calibration) + "\n" + row("stage", "time", "each", "speed", "rate", "of peak");
  for (const Stage& stage : m.stages) out += stage_row(stage);
  const std::string peak = m.peak_rss ? fmt::format("{:.0f} MiB", static_cast<double>(*m.peak_rss) / (1 << 20)) : "-";
  return out + fmt::format("{:<16}{:>12}\n", "peak memory", peak);
}

}  // namespace idefics::cli
