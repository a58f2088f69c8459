// idefics bench: how fast a model is here, and how fast it could be.
#include <climits>
#include <memory>

#include "cli/bench_report.h"
#include "cli/pictures.h"
#include "cli/progress.h"
#include "cli/shared_flags.h"
#include "cli/terminal.h"
#include "cli/verbs.h"

namespace idefics::cli {

namespace {

struct Bench {
  ModelArgument model;
  ImageFlags images;
  EngineFlags engine;
  std::optional<std::string> picture;
  std::optional<int> max_tokens, runs;
  bool json = false;
};

// Runs it; a picture that turns out to be damaged is named by its file.
Measurement measure_aloud(const MeasurementOptions& wanted, const std::optional<std::string>& file) {
  Progress progress(true);
  try {
    return measure(wanted, [&](const std::string& what) { progress.say(what); });
  } catch (const Error& e) {
    if (!file) throw;
    blame_picture(e, {.messages = {{"user", {ContentPart::of_image(*wanted.picture)}}}, .pictures = {*file}});
  }
}

int run(const Bench& options) {
  MeasurementOptions wanted{
      .folder = options.model.folder, .engine = options.engine.options(), .images = options.images.options()};
  if (options.picture) wanted.picture = read_picture(*options.picture);
  options.model.require();
  if (options.max_tokens) wanted.max_tokens = *options.max_tokens;
  if (options.runs) wanted.runs = *options.runs;
  const Measurement measurement = measure_aloud(wanted, options.picture);
  const BenchTitle title{options.model.folder, options.picture.value_or("")};
  print(options.json ? json::serialize(bench_json(title, measurement)) + "\n" : bench_text(title, measurement));
  return 0;
}

}  // namespace

void add_bench(CommandLine& line) {
  Verb& verb = line.add_verb(
      "bench", "Measure how fast a model is here, beside what the machine can do.",
      "idefics bench models/tiny-cards --image card.png",
      "Takes about a second to find out how fast this machine computes and reads memory, then measures each stage of "
      "an answer: as time, as work done a second, and as the share of what the machine can do at most. Without "
      "speculation and without caches. Wants a machine that does nothing else.");
  const auto options = std::make_shared<Bench>();
  options->model.describe(verb);
  verb.group("Measurement");
  verb.text("--image", "FILE", "The picture that is asked about; default: one of 1920 x 1080 that is made up",
            options->picture);
  verb.length("--max-tokens", "Tokens of each answer; default: 128", 2, INT_MAX, options->max_tokens);
  verb.whole("--runs", "Runs of which the median counts, after one that does not; default: 5", 1, 10000, options->runs);
  options->images.describe(verb);
  options->engine.describe(verb);
  verb.group("Output");
  verb.flag("--json", "Print one JSON object, with the times of every run", options->json);
  verb.config_file();
  verb.action([options] { return run(*options); });
}

}  // namespace idefics::cli
