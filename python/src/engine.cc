#include "idefics/engine.h"

#include <nanobind/stl/filesystem.h>
#include <nanobind/stl/function.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/vector.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <memory>
#include <mutex>

#include "arrays.h"
#include "binding.h"

namespace idefics::python {

namespace {

constexpr int kSignalsMs = 50;  // how often a waiting call looks for Ctrl-C

bool is_failure(const Event& event) { return event.error && event.error->code() != ErrorCode::kCancelled; }

void raise(const Error& error) {
  const nb::object value = to_exception(error);
  PyErr_SetObject(value.type().ptr(), value.ptr());
  throw nb::python_error();
}

// The events of a request, waited for without the interpreter's lock.
class Stream {
 public:
  explicit Stream(EventStream stream) : stream_(std::move(stream)) {}
  RequestId id() const { return stream_.id(); }
  Event next() {
    for (;;) {
      std::optional<Event> event;
      bool ended = false;
      {
        nb::gil_scoped_release release;
        const std::lock_guard lock(mutex_);
        event = stream_.next(kSignalsMs);
        ended = stream_.ended();
      }
      if (event && is_failure(*event)) raise(*event->error);
      if (event) return std::move(*event);
      if (ended) throw nb::stop_iteration();
      if (PyErr_CheckSignals() != 0) throw nb::python_error();
    }
  }

 private:
  std::mutex mutex_;
  EventStream stream_;
};

// The events of a request for an event loop, which watches a file descriptor: the engine's threads never wait for the
// interpreter's lock.
class EventQueue {
 public:
  EventQueue() : fd_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
    if (fd_ < 0) throw Error(ErrorCode::kIo, "cannot make an event file descriptor: too many files are open");
  }
  EventQueue(const EventQueue&) = delete;
  EventQueue& operator=(const EventQueue&) = delete;
  ~EventQueue() { close(fd_); }

  int fileno() const { return fd_; }
  void push(Event&& event) {
    {
      const std::lock_guard lock(mutex_);
      events_.push_back(std::move(event));
    }
    eventfd_write(fd_, 1);
  }
  std::vector<Event> drain() {
    eventfd_t count;
    eventfd_read(fd_, &count);
    const std::lock_guard lock(mutex_);
    return std::exchange(events_, {});
  }

 private:
  int fd_;
  std::mutex mutex_;
  std::vector<Event> events_;
};

// A submitted request with its queue.
struct QueuedRequest {
  RequestId id;
  std::shared_ptr<EventQueue> queue;
};

QueuedRequest submit_queued(Engine& engine, const Request& request) {
  auto queue = std::make_shared<EventQueue>();
  nb::gil_scoped_release release;
  const RequestId id = engine.submit(request, [queue](Event&& event) { queue->push(std::move(event)); });
  return {id, std::move(queue)};
}

// Engine::generate with callbacks of Python; Ctrl-C and what a callback raises end it.
Answer generate(Engine& engine, const Request& request, nb::object on_text, nb::object on_tiles) {
  std::exception_ptr raised;
  const auto call = [&](const auto& body) {
    if (raised) return;
    nb::gil_scoped_acquire lock;
    try {
      body();
    } catch (nb::python_error&) {
      raised = std::current_exception();
    }
  };
  Observer observer;
  if (!on_text.is_none())
    observer.text = [&](std::string_view delta) { call([&] { on_text(nb::str(delta.data(), delta.size())); }); };
  if (!on_tiles.is_none()) observer.tiles = [&](int done, int total) { call([&] { on_tiles(done, total); }); };
  observer.cancelled = [&] {
    call([] {
      if (PyErr_CheckSignals() != 0) throw nb::python_error();
    });
    return raised != nullptr;
  };
  Answer answer;
  {
    nb::gil_scoped_release release;
    answer = engine.generate(request, observer);
  }
  if (raised) std::rethrow_exception(raised);
  return answer;
}

void bind_sampling(nb::module_& m) {
  using P = SamplingParams;
  nb::class_<P>(m, "SamplingParams", "How the next token is chosen. The defaults choose greedily.")
      .def(
          "__init__",
          [](P* self, double temperature, int top_k, double top_p, double min_p, double repetition_penalty,
             double presence_penalty, double frequency_penalty, int no_repeat_ngram_size,
             std::vector<std::pair<int32_t, double>> logit_bias, std::optional<uint64_t> seed, int max_tokens,
             int min_tokens, bool ignore_eos, std::vector<int32_t> stop_token_ids, std::vector<std::string> stop) {
            new (self) P{.temperature = temperature,
                         .top_k = top_k,
                         .top_p = top_p,
                         .min_p = min_p,
                         .repetition_penalty = repetition_penalty,
                         .presence_penalty = presence_penalty,
                         .frequency_penalty = frequency_penalty,
                         .no_repeat_ngram_size = no_repeat_ngram_size,
                         .logit_bias = std::move(logit_bias),
                         .seed = seed,
                         .max_tokens = max_tokens,
                         .min_tokens = min_tokens,
                         .ignore_eos = ignore_eos,
                         .stop_token_ids = std::move(stop_token_ids),
                         .stop = std::move(stop)};
          },
          nb::kw_only(), nb::arg("temperature") = 0.0, nb::arg("top_k") = 0, nb::arg("top_p") = 1.0,
          nb::arg("min_p") = 0.0, nb::arg("repetition_penalty") = 1.0, nb::arg("presence_penalty") = 0.0,
          nb::arg("frequency_penalty") = 0.0, nb::arg("no_repeat_ngram_size") = 0,
          nb::arg("logit_bias") = std::vector<std::pair<int32_t, double>>(), nb::arg("seed") = nb::none(),
          nb::arg("max_tokens") = 0, nb::arg("min_tokens") = 0, nb::arg("ignore_eos") = false,
          nb::arg("stop_token_ids") = std::vector<int32_t>(), nb::arg("stop") = std::vector<std::string>())
      .def_rw("temperature", &P::temperature, "0: greedy; otherwise logits are divided by it.")
      .def_rw("top_k", &P::top_k, "0: off.")
      .def_rw("top_p", &P::top_p)
      .def_rw("min_p", &P::min_p)
      .def_rw("repetition_penalty", &P::repetition_penalty)
      .def_rw("presence_penalty", &P::presence_penalty)
      .def_rw("frequency_penalty", &P::frequency_penalty)
      .def_rw("no_repeat_ngram_size", &P::no_repeat_ngram_size)
      .def_rw("logit_bias", &P::logit_bias, "Pairs of token id and what is added to its logit.")
      .def_rw("seed", &P::seed)
      .def_rw("max_tokens", &P::max_tokens, "0: as many as the context holds.")
      .def_rw("min_tokens", &P::min_tokens)
      .def_rw("ignore_eos", &P::ignore_eos)
      .def_rw("stop_token_ids", &P::stop_token_ids)
      .def_rw("stop", &P::stop, "Strings that end the text.");
}

// A schema as JSON text or as what json.dumps takes.
std::string schema_text(nb::handle schema) {
  if (nb::isinstance<nb::str>(schema)) return nb::cast<std::string>(schema);
  return nb::cast<std::string>(nb::module_::import_("json").attr("dumps")(schema));
}

void bind_structured_output(nb::module_& m) {
  using O = StructuredOutput;
  using Kind = O::Kind;
  nb::class_<O>(
      m, "StructuredOutput",
      "What an answer must look like, from its first character to its last. docs/structured_output.md lists what "
      "is supported; anything else is refused (\"schema_invalid\") when the request is submitted.")
      .def_static(
          "json_object", [] { return O{.kind = Kind::kJsonObject}; }, "Any JSON object.")
      .def_static(
          "json_schema", [](nb::handle schema) { return O{.kind = Kind::kJsonSchema, .text = schema_text(schema)}; },
          nb::arg("schema"), nb::sig("def json_schema(schema: dict | bool | str) -> StructuredOutput"),
          "JSON that a schema allows; a str is the schema's JSON text.")
      .def_static(
          "regex", [](std::string pattern) { return O{.kind = Kind::kRegex, .text = std::move(pattern)}; },
          nb::arg("pattern"), "A text that a regular expression matches as a whole.")
      .def_static(
          "choice",
          [](std::vector<std::string> choices) { return O{.kind = Kind::kChoice, .choices = std::move(choices)}; },
          nb::arg("choices"), "One of these texts.")
      .def_static(
          "grammar", [](std::string gbnf) { return O{.kind = Kind::kGrammar, .text = std::move(gbnf)}; },
          nb::arg("gbnf"), "A text of a grammar in GBNF, with the start rule \"root\".")
      .def_prop_ro(
          "kind",
          [](const O& o) -> const char* {
            switch (o.kind) {
              case Kind::kJsonObject: return "json_object";
              case Kind::kJsonSchema: return "json_schema";
              case Kind::kRegex: return "regex";
              case Kind::kChoice: return "choice";
              case Kind::kGrammar: return "grammar";
            }
            return "";
          },
          "The name of the function that made it.")
      .def_ro("text", &O::text, "The schema's JSON text, the expression or the grammar.")
      .def_ro("choices", &O::choices);
}

void bind_request(nb::module_& m) {
  nb::class_<Request>(m, "Request", "What to answer: messages, or `text`, or `token_ids`.")
      .def(
          "__init__",
          [](Request* self, nb::handle messages, std::optional<std::string> text,
             std::optional<std::vector<int32_t>> token_ids, const PromptOptions& prompt, const SamplingParams& sampling,
             int n, std::optional<int> logprobs, std::optional<int> prompt_logprobs,
             std::optional<bool> skip_special_tokens, bool include_stop_str_in_output,
             std::optional<StructuredOutput> structured_output, std::string cache_salt) {
            Request request;
            request.messages = to_messages(messages);
            request.prompt = prompt;
            request.text = std::move(text);
            request.token_ids = std::move(token_ids);
            request.sampling = sampling;
            request.n = n;
            request.logprobs = logprobs;
            request.prompt_logprobs = prompt_logprobs;
            request.skip_special_tokens = skip_special_tokens;
            request.include_stop_str_in_output = include_stop_str_in_output;
            request.structured_output = std::move(structured_output);
            request.cache_salt = std::move(cache_salt);
            new (self) Request(std::move(request));
          },
          nb::arg("messages") = nb::make_tuple(), nb::kw_only(), nb::arg("text") = nb::none(),
          nb::arg("token_ids") = nb::none(), nb::arg("prompt") = PromptOptions(),
          nb::arg("sampling") = SamplingParams(), nb::arg("n") = 1, nb::arg("logprobs") = nb::none(),
          nb::arg("prompt_logprobs") = nb::none(), nb::arg("skip_special_tokens") = nb::none(),
          nb::arg("include_stop_str_in_output") = false, nb::arg("structured_output") = nb::none(),
          nb::arg("cache_salt") = "",
          "`messages`: Message objects or dictionaries {\"role\", \"content\"}; a picture is {\"type\": \"image\", "
          "\"image\": bytes or path}.")
      .def_rw("messages", &Request::messages)
      .def_rw("prompt", &Request::prompt)
      .def_rw("text", &Request::text, nb::arg().none(), "Plain text without template.")
      .def_rw("token_ids", &Request::token_ids, nb::arg().none(), "Ids of a prompt without template.")
      .def_rw("sampling", &Request::sampling)
      .def_rw("n", &Request::n, "Answers, which share the computed prompt.")
      .def_rw("logprobs", &Request::logprobs, nb::arg().none(),
              "Report each token's log probability, and so many of the likeliest tokens.")
      .def_rw("prompt_logprobs", &Request::prompt_logprobs, nb::arg().none(),
              "The same for the prompt's tokens; computes the whole prompt.")
      .def_rw("skip_special_tokens", &Request::skip_special_tokens, nb::arg().none(),
              "Leave special tokens out of the text. None: yes, but for models that write DocTags.")
      .def_rw("include_stop_str_in_output", &Request::include_stop_str_in_output)
      .def_rw("structured_output", &Request::structured_output, nb::arg().none(), "What the text must look like.")
      .def_rw("cache_salt", &Request::cache_salt, "Requests share cached prefixes only with the same salt.");
}

void bind_results(nb::module_& m) {
  nb::enum_<FinishReason>(m, "FinishReason", "Why a choice ended.")
      .value("STOP", FinishReason::kStop)
      .value("LENGTH", FinishReason::kLength)
      .value("CANCELLED", FinishReason::kCancelled);
  nb::class_<TokenLogprob>(m, "TokenLogprob", "A token and its log probability.")
      .def_ro("id", &TokenLogprob::id)
      .def_ro("logprob", &TokenLogprob::logprob,
              "Natural logarithm of softmax(logits), before any sampling parameter.");
  nb::class_<TokenInfo>(m, "TokenInfo", "A token with what was asked about it.")
      .def_ro("id", &TokenInfo::id)
      .def_ro("logprob", &TokenInfo::logprob)
      .def_ro("top", &TokenInfo::top, "The likeliest, best first.");
  nb::class_<Usage>(m, "Usage", "Counts of tokens and tiles.")
      .def_ro("prompt_tokens", &Usage::prompt_tokens)
      .def_ro("cached_tokens", &Usage::cached_tokens)
      .def_ro("image_tokens", &Usage::image_tokens)
      .def_ro("tiles", &Usage::tiles)
      .def_ro("completion_tokens", &Usage::completion_tokens);
  nb::class_<Timings>(m, "Timings", "Milliseconds.")
      .def_ro("preprocess_ms", &Timings::preprocess_ms)
      .def_ro("queue_ms", &Timings::queue_ms)
      .def_ro("vision_ms", &Timings::vision_ms)
      .def_ro("prefill_ms", &Timings::prefill_ms)
      .def_ro("ttft_ms", &Timings::ttft_ms, "From submit to the first token.")
      .def_ro("decode_ms", &Timings::decode_ms)
      .def_ro("decode_tokens_per_s", &Timings::decode_tokens_per_s);
  nb::class_<Choice>(m, "Choice", "One of the n answers to a request.")
      .def_ro("text", &Choice::text)
      .def_ro("token_ids", &Choice::token_ids, "The stop token included.")
      .def_ro("tokens", &Choice::tokens, "TokenInfo of each token, when logprobs were asked for.")
      .def_ro("finish_reason", &Choice::finish_reason);
  nb::class_<Answer>(m, "Answer", "What a request was answered.")
      .def_ro("choices", &Answer::choices)
      .def_ro("prompt_token_ids", &Answer::prompt_token_ids)
      .def_ro("prompt_logprobs", &Answer::prompt_logprobs)
      .def_ro("usage", &Answer::usage)
      .def_ro("seed", &Answer::seed)
      .def_ro("timings", &Answer::timings)
      .def_prop_ro(
          "text", [](const Answer& a) { return a.text(); }, "Of the first choice.")
      .def_prop_ro("token_ids", [](const Answer& a) { return a.token_ids(); })
      .def_prop_ro("finish_reason", [](const Answer& a) { return a.finish_reason(); });

  nb::enum_<Event::Type>(m, "EventType", "What an Event tells, in the order of their coming.")
      .value("PROMPT", Event::Type::kPrompt, "The prompt is tokenised: usage, prompt_token_ids, seed.")
      .value("TILES", Event::Type::kTiles, "tiles_done of usage.tiles tiles are encoded or were at hand.")
      .value("TOKENS", Event::Type::kTokens, "New tokens of a choice, and the text that became certain.")
      .value("CHOICE", Event::Type::kChoice, "The choice ended: finish_reason, and the rest of its text.")
      .value("END", Event::Type::kEnd, "Once, and last: usage, timings, error.");
  nb::class_<Event>(m, "Event", "What happens to a request.")
      .def_ro("type", &Event::type)
      .def_ro("choice", &Event::choice)
      .def_ro("text", &Event::text)
      .def_ro("tokens", &Event::tokens)
      .def_ro("prompt_token_ids", &Event::prompt_token_ids)
      .def_ro("prompt_logprobs", &Event::prompt_logprobs)
      .def_ro("seed", &Event::seed)
      .def_ro("tiles_done", &Event::tiles_done)
      .def_ro("finish_reason", &Event::finish_reason)
      .def_ro("usage", &Event::usage)
      .def_ro("timings", &Event::timings)
      .def_prop_ro(
          "error", [](const Event& e) { return e.error ? to_exception(*e.error) : nb::none(); },
          nb::sig("def error(self) -> Error | None"), "Of the END of a cancelled request; other errors are raised.");
}

void bind_options(nb::module_& m) {
  nb::enum_<ComputeType>(m, "ComputeType", "AUTO: bfloat16 when the checkpoint stores it, else float32.")
      .value("AUTO", ComputeType::kAuto)
      .value("FLOAT32", ComputeType::kF32)
      .value("BFLOAT16", ComputeType::kBf16)
      .value("INT8", ComputeType::kInt8, "Weights in 8 bits, and so the inputs of products.")
      .value("Q8", ComputeType::kQ8, "The text tower in 8 bits, 32 weights sharing a scale.")
      .value("Q4", ComputeType::kQ4, "The text tower in 4 bits, 32 weights sharing a scale and an offset.");
  nb::enum_<KvCacheType>(m, "KvCacheType",
                         "How keys and values are kept. AUTO: float32 beside float32 weights, else bfloat16.")
      .value("AUTO", KvCacheType::kAuto)
      .value("FLOAT32", KvCacheType::kF32)
      .value("BFLOAT16", KvCacheType::kBf16)
      .value("Q8", KvCacheType::kQ8, "8 bits and a scale for each key and value: about half of bfloat16.");
  using O = EngineOptions;
  nb::class_<O>(m, "EngineOptions", "None of these changes an answer, but for dtype, kv_cache_dtype and max_model_len.")
      .def(nb::init<>())
      .def_rw("dtype", &O::dtype)
      .def_rw("kv_cache_dtype", &O::kv_cache_dtype)
      .def_rw("num_threads", &O::num_threads, "0: the CPUs this process may use.")
      .def_rw("max_model_len", &O::max_model_len, nb::arg().none(), "Most tokens of prompt and answer.")
      .def_rw("max_num_seqs", &O::max_num_seqs, "Sequences computed at the same time.")
      .def_rw("max_waiting", &O::max_waiting, "Requests that may wait; more are refused (\"overloaded\").")
      .def_rw("max_num_batched_tokens", &O::max_num_batched_tokens, "Rows of a step.")
      .def_rw("page_size", &O::page_size, "Tokens of a page, a multiple of 64.")
      .def_rw("kv_cache_bytes", &O::kv_cache_bytes, nb::arg().none(),
              "None: max_num_seqs sequences of 2048 tokens, and at least one of max_model_len.")
      .def_rw("enable_prefix_caching", &O::enable_prefix_caching,
              "Prompts that begin alike are computed once, pictures included.")
      .def_rw("vision_cache_bytes", &O::vision_cache_bytes, "Features of tiles kept after their request is through.")
      .def_rw("pixel_cache_bytes", &O::pixel_cache_bytes, "Tiles that wait for the vision tower.")
      .def_rw("speculative", &O::speculative, "Tokens that repeat the text so far are guessed and verified.")
      .def_rw("allow_nonfinite", &O::allow_nonfinite, "Load weights with NaN or Inf; Engine.nonfinite names them.");
  using S = EngineStats;
  nb::class_<S>(m, "EngineStats", "Numbers since the engine was loaded.")
      .def_ro("waiting", &S::waiting)
      .def_ro("running", &S::running)
      .def_ro("pages", &S::pages)
      .def_ro("pages_used", &S::pages_used)
      .def_ro("requests", &S::requests)
      .def_ro("finished_stop", &S::finished_stop)
      .def_ro("finished_length", &S::finished_length)
      .def_ro("cancelled", &S::cancelled)
      .def_ro("failed", &S::failed)
      .def_ro("refused", &S::refused)
      .def_ro("prompt_tokens", &S::prompt_tokens)
      .def_ro("cached_tokens", &S::cached_tokens)
      .def_ro("generated_tokens", &S::generated_tokens)
      .def_ro("tiles_encoded", &S::tiles_encoded)
      .def_ro("tiles_cached", &S::tiles_cached)
      .def_ro("drafted_tokens", &S::drafted_tokens)
      .def_ro("accepted_tokens", &S::accepted_tokens)
      .def_ro("steps", &S::steps)
      .def_ro("preemptions", &S::preemptions)
      .def_ro("step_ms", &S::step_ms, "In all steps together.")
      .def_ro("plan_ms", &S::plan_ms, "Of these, in the scheduler.")
      .def_ro("since_step_ms", &S::since_step_ms, "Since the last step ended while there was work; 0 when idle.");
}

}  // namespace

void bind_engine(nb::module_& m) {
  bind_sampling(m);
  bind_structured_output(m);
  bind_request(m);
  bind_results(m);
  bind_options(m);
  nb::class_<Stream>(m, "EventStream",
                     "The events of a request, as an iterator. Dropping it cancels the request. Ctrl-C ends a wait; an "
                     "error of the request is raised in place of its END.")
      .def("__iter__", [](nb::handle self) { return nb::borrow(self); })
      .def("__next__", &Stream::next)
      .def_prop_ro("id", &Stream::id);
  nb::class_<QueuedRequest>(m, "QueuedRequest", "A request whose events an event loop fetches (idefics.aio).")
      .def_ro("id", &QueuedRequest::id)
      .def(
          "fileno", [](const QueuedRequest& r) { return r.queue->fileno(); }, "Readable when there are events.")
      .def("drain", [](const QueuedRequest& r) { return r.queue->drain(); });

  nb::class_<Engine>(m, "EngineBase", "What idefics.Engine is made from.")
      .def(
          "__init__",
          [](Engine* self, const std::filesystem::path& folder, const EngineOptions& options) {
            nb::gil_scoped_release release;
            new (self) Engine(Engine::load(folder, options));
          },
          nb::arg("folder"), nb::arg("options") = EngineOptions())
      .def(
          "generate", &generate, nb::arg("request"), nb::arg("on_text") = nb::none(), nb::arg("on_tiles") = nb::none(),
          nb::sig(
              "def generate(self, request: Request, on_text: collections.abc.Callable[[str], object] | None = None, "
              "on_tiles: collections.abc.Callable[[int, int], object] | None = None) -> Answer"),
          "Answers one request and returns when it is through; other threads of Python run meanwhile. `on_text(delta)` "
          "and `on_tiles(done, total)` are called on the way. Ctrl-C cancels it. Raises Error.")
      .def(
          "submit",
          [](Engine& self, const Request& request) {
            nb::gil_scoped_release release;
            return std::make_unique<Stream>(self.submit(request));
          },
          nb::arg("request"), nb::keep_alive<0, 1>(), "Hands a request over and gives its events.")
      .def("submit_queued", &submit_queued, nb::arg("request"), nb::keep_alive<0, 1>())
      .def("cancel", &Engine::cancel, nb::arg("id"), nb::call_guard<nb::gil_scoped_release>(),
           "Ends a request within one step or one tile.")
      .def_prop_ro("default_sampling", &Engine::default_sampling, "What generation_config.json asks for.")
      .def_prop_ro("processor", &Engine::processor, nb::rv_policy::reference_internal)
      .def_prop_ro("config", &Engine::config, nb::rv_policy::reference_internal)
      .def_prop_ro("max_model_len", &Engine::max_model_len)
      .def_prop_ro("kernels", &Engine::kernels)
      .def_prop_ro("dtype", &Engine::dtype, "\"f32\", \"bf16\", \"int8\", \"q8\" or \"q4\".")
      .def_prop_ro("kv_cache_dtype", &Engine::kv_cache_dtype, "\"f32\", \"bf16\" or \"q8\".")
      .def_prop_ro("skips_special_tokens", &Engine::skips_special_tokens,
                   "Whether texts leave special tokens out when a request does not say.")
      .def_prop_ro("stats", &Engine::stats)
      .def_prop_ro("nonfinite", &Engine::nonfinite);
}

}  // namespace idefics::python
