// idefics bench serve: load on a server, and how it bears it.
#include <fmt/format.h>

#include <climits>
#include <memory>

#include "base/files.h"
#include "cli/interrupt.h"
#include "cli/pictures.h"
#include "cli/terminal.h"
#include "cli/verbs.h"
#include "load/load.h"

namespace idefics::cli {

namespace {

struct BenchServe {
  std::string url;
  std::optional<std::string> model, api_key, prompt, arrivals;
  std::vector<std::string> images, goals;
  std::optional<double> rate, duration;
  std::optional<int> concurrency, num_requests, max_tokens, timeout;
  std::optional<uint64_t> seed;
  bool ignore_eos = false, json = false;
};

[[noreturn]] void refuse(const std::string& message) { throw Error(ErrorCode::kUsage, message); }

double above_zero(const char* option, double value) {
  if (!(value > 0 && value <= 1e6))
    refuse(fmt::format("{} is {}, wanted a number above 0, at most 1000000", option, value));
  return value;
}

// "ttft:500".
void set_goal(load::Goal& goal, const std::string& text) {
  const size_t colon = std::min(text.find(':'), text.size());
  const std::string name = text.substr(0, colon);
  const std::optional<double> ms = parse_number(text.substr(std::min(colon + 1, text.size())));
  std::optional<double>* place = name == "ttft"   ? &goal.ttft_ms
                                 : name == "tpot" ? &goal.tpot_ms
                                 : name == "e2el" ? &goal.e2el_ms
                                                  : nullptr;
  if (place == nullptr || !ms || *ms <= 0)
    refuse(fmt::format("--goodput is \"{}\", wanted ttft:MS, tpot:MS or e2el:MS", text));
  *place = ms;
}

load::LoadOptions load_options(const BenchServe& options) {
  if (options.rate && options.concurrency) refuse("--rate and --concurrency exclude each other; give one of them");
  load::LoadOptions out;
  out.url = options.url;
  out.model = options.model.value_or("");
  out.api_key = options.api_key.value_or("");
  out.prompt = options.prompt.value_or(options.images.empty() ? "Tell a long story." : "Describe the image.");
  for (const std::string& file : options.images) out.images.push_back(read_picture(file));
  out.max_tokens = options.max_tokens.value_or(out.max_tokens);
  out.ignore_eos = options.ignore_eos;
  if (options.rate) out.rate = above_zero("--rate", *options.rate);
  out.even = options.arrivals.value_or("poisson") == "constant";
  out.concurrency = options.concurrency.value_or(out.concurrency);
  out.seed = options.seed.value_or(out.seed);
  if (options.duration) {
    out.duration_s = above_zero("--duration", *options.duration);
    out.num_requests = INT64_MAX;
  }
  if (options.num_requests) out.num_requests = *options.num_requests;
  if (options.timeout) out.timeout_ms = 1000 * *options.timeout;
  for (const std::string& goal : options.goals) set_goal(out.goal, goal);
  return out;
}

int run(const BenchServe& options) {
  const load::LoadOptions wanted = load_options(options);
  const InterruptScope interrupt;
  const load::LoadReport report = load::run_load(wanted, [&] { return interrupt.requested(); });
  print(options.json ? json::serialize(load::load_json(report)) + "\n" : load::load_text(report));
  if (interrupt.requested()) return exit_code(ErrorCode::kCancelled);
  return report.failed > 0 ? exit_code(ErrorCode::kInternal) : 0;
}

}  // namespace

void add_bench_serve(CommandLine& line) {
  Verb& verb = line.add_verb(
      "bench serve", "Put load on a server and measure how it bears it.",
      "idefics bench serve --url http://127.0.0.1:8000 --rate 10 --duration 60 --image a.jpg",
      "Works with every server that speaks OpenAI's interface. Times count from the moment when a request was to be "
      "sent: a server that is behind cannot hide it. Ctrl-C prints what there is so far. Ends with 1 when requests "
      "failed; refusals (503, 429) are counted by themselves and are no failures.");
  const auto options = std::make_shared<BenchServe>();
  verb.group("Server");
  verb.required_text("--url", "URL", "The server, like http://127.0.0.1:8000 or unix:/run/idefics.sock", options->url);
  verb.text("--model", "NAME", "Name of the model; default: the first that the server lists", options->model);
  verb.text("--api-key", "KEY", "The server's key; others can see command lines, so better set IDEFICS_API_KEY",
            options->api_key);
  verb.group("Load");
  verb.number("--rate", "Begin so many requests a second, whether answers come or not", options->rate);
  verb.text("--arrivals", "poisson|constant",
            "Distances between them: random, as clients come, or even; default poisson", options->arrivals);
  verb.seed("--seed", "Of random distances; default 0", options->seed);
  verb.whole("--concurrency", "Instead of a rate: so many requests at a time; default 1", 1, 100'000,
             options->concurrency);
  verb.whole("--num-requests", "Requests in all; default 100, without end with --duration", 1, INT_MAX,
             options->num_requests);
  verb.number("--duration", "Seconds after which no more begin", options->duration);
  verb.whole("--timeout", "Seconds for one answer; default 600", 1, 86400, options->timeout);
  verb.group("Requests");
  verb.texts("--image", "FILE", "A picture to ask about; of several each request has the next one", options->images);
  verb.text("-p,--prompt", "TEXT", "What to ask", options->prompt);
  verb.whole("--max-tokens", "Tokens of each answer at most; default 128", 1, INT_MAX, options->max_tokens);
  verb.flag("--ignore-eos", "Let answers run to --max-tokens, where the server knows this field", options->ignore_eos);
  verb.group("Output");
  verb.texts("--goodput", "NAME:MS", "What a good answer keeps: ttft:MS, tpot:MS (each further token), e2el:MS",
             options->goals);
  verb.flag("--json", "Print one JSON object", options->json);
  verb.action([options] { return run(*options); });
}

}  // namespace idefics::cli
