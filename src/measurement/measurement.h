// How fast a checkpoint is on this machine, stage by stage, beside what the machine can do at most.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "calibration/calibration.h"
#include "idefics/engine.h"

namespace idefics {

struct MeasurementOptions {
  std::filesystem::path folder;
  EngineOptions engine = {};                          // dtype, threads and the like
  std::optional<std::string> picture = std::nullopt;  // an encoded file; default: a made one of 1920 x 1080
  ImageOptions images = {};
  int max_tokens = 128;  // of each answer, 2 or more
  int runs = 5;          // that count, 1 or more; one before them warms up
};

// A part of the way from the request to the answer.
struct Stage {
  enum class Work { kNone, kOperations, kBytes };

  std::string name;         // "vision"
  std::vector<double> ms;   // of each run
  std::string unit = {};    // what a run consists of: "tile", "token"; empty: nothing that is counted
  double units = 0;         // of a run
  Work kind = Work::kNone;  // what bounds the stage
  double work = 0;          // of a run: floating point operations, or bytes read
  std::optional<double> bound = std::nullopt;  // work a second that the machine can do at most, where that is known

  double median_ms() const;
  std::optional<double> units_per_s() const;
  std::optional<double> work_per_s() const;
  std::optional<double> share() const;  // of the bound
};

struct Measurement {
  std::string kernels = {}, dtype = {};
  Calibration calibration = {};
  int picture_width = 0, picture_height = 0;
  int tiles = 0, prompt_tokens = 0, generated_tokens = 0;  // of a run with the picture
  int runs = 0;
  // load (once), preprocess, vision, image prefill, first token, decode, text prefill. No decode when the context has
  // room for one token only.
  std::vector<Stage> stages = {};
  std::optional<int64_t> peak_rss =
      std::nullopt;  // bytes, without the calibration; nothing where the system cannot tell
};

// Calibrates, loads the model and measures it as one user who is alone has it: one sequence, no speculation, no prefix
// that was computed before. `say` is told what goes on.
// Errors: those of decode_image, Engine::load and Engine::generate.
Measurement measure(const MeasurementOptions& options, const std::function<void(const std::string&)>& say);

}  // namespace idefics
