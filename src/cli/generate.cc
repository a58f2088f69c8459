// idefics generate: one question, one answer.
#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <memory>

#include "base/json.h"
#include "cli/ask.h"
#include "cli/shared_flags.h"
#include "cli/stage_lines.h"
#include "cli/terminal.h"
#include "cli/verbs.h"
#include "measurement/memory.h"

namespace idefics::cli {

namespace {

struct Generate {
  ModelArgument model;
  InputFlags input;
  ImageFlags images;
  SamplingFlags sampling;
  StructureFlags structure;
  EngineFlags engine;
  bool json = false, verbose = false;
};

std::string to_json(const Engine& engine, const Answer& answer, double load_ms) {
  const Timings& t = answer.timings;
  const json::object timings = {{"load_ms", load_ms},
                                {"preprocess_ms", t.preprocess_ms},
                                {"vision_ms", t.vision_ms},
                                {"prefill_ms", t.prefill_ms},
                                {"ttft_ms", t.ttft_ms},
                                {"decode_ms", t.decode_ms},
                                {"decode_tokens_per_s", t.decode_tokens_per_s}};
  const json::object object = {
      {"text", answer.text()},
      {"token_ids", json::value_from(answer.token_ids())},
      {"prompt_token_ids", json::value_from(answer.prompt_token_ids)},
      {"finish_reason", finish_reason_name(answer.finish_reason())},
      {"prompt_tokens", answer.prompt_token_ids.size()},
      {"image_tokens", answer.usage.image_tokens},
      {"tiles", answer.usage.tiles},
      {"generated_tokens", answer.token_ids().size()},
      {"seed", answer.seed},
      {"timings", timings},
      {"peak_rss_bytes", peak_rss_bytes()},
      {"kernels", engine.kernels()},
      {"dtype", engine.dtype()},
  };
  return json::serialize(object) + "\n";
}

// For the one who watches: how fast it went.
void print_speed(const Answer& answer) {
  if (!is_terminal(STDERR_FILENO)) return;
  print_note(fmt::format("{} tokens, {:.1f} a second, the first after {:.2f} s\n", answer.token_ids().size(),
                         answer.timings.decode_tokens_per_s, answer.timings.ttft_ms / 1000),
             Color::kDim);
}

int run(const Generate& options) {
  const Conversation conversation = options.input.read();
  options.model.require();
  Request request{.messages = conversation.messages,
                  .sampling = options.sampling.apply({}),
                  .skip_special_tokens = options.sampling.skip_special(),
                  .structured_output = options.structure.read()};
  request.prompt.images = options.images.options();

  const auto start = std::chrono::steady_clock::now();
  Engine engine = load_engine(options.model, options.engine);
  const std::chrono::duration<double, std::milli> load_time = std::chrono::steady_clock::now() - start;

  request.sampling = options.sampling.apply(engine.default_sampling());
  const bool elsewhere = options.json || !is_terminal(STDOUT_FILENO);
  const Answer answer = ask(engine, request, conversation, elsewhere, [&](std::string_view delta) {
    if (!options.json) print(delta);
  });
  print(options.json ? to_json(engine, answer, load_time.count()) : "\n");
  if (options.verbose) {
    print_note(memory_line(engine.memory()));
    print_note(stage_lines(answer, stats_of_all(engine, answer), load_time.count()));
  } else {
    print_speed(answer);
  }
  if (answer.finish_reason() == FinishReason::kCancelled)
    throw Error(ErrorCode::kCancelled, "interrupted before the answer was complete");
  return 0;
}

}  // namespace

void add_generate(CommandLine& line) {
  Verb& verb = line.add_verb("generate", "Answer one question about pictures.",
                             "idefics generate models/tiny-cards --image card.png -p 'What colour is the circle?'",
                             "The text of the answer goes to standard output as it comes, exactly as the model writes "
                             "it and with a line end behind it. Sampling is as the model's generation_config.json says "
                             "unless an option says otherwise.");
  const auto options = std::make_shared<Generate>();
  options->model.describe(verb);
  options->input.describe(verb);
  options->images.describe(verb);
  options->sampling.describe(verb);
  options->structure.describe(verb);
  options->engine.describe(verb);
  verb.group("Output");
  verb.flag("--json", "Print one JSON object: text, token ids, counts, timings, peak memory", options->json);
  verb.flag("-v,--verbose", "Say on standard error how much memory there is for what, and how long each stage took",
            options->verbose);
  verb.config_file();
  verb.action([options] { return run(*options); });
}

}  // namespace idefics::cli
