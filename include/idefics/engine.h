// A checkpoint that answers, many requests at once.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "idefics/config.h"
#include "idefics/error.h"
#include "idefics/processor.h"
#include "idefics/sampling.h"
#include "idefics/structured_output.h"

namespace idefics {

enum class ComputeType {
  kAuto,  // bf16 when the checkpoint stores bf16, else f32: never fewer bits than the file has
  kF32,
  kBf16,  // weights, matrix inputs and (KvCacheType) the KV cache in bfloat16; every sum in float32
  // As kBf16, but with the weights of the layers in fewer bits (and those of the head as in kQ8)
  kInt8,  // both towers and the connector: 8 bits, a scale for each output; inputs of products are rounded to 8 bits
          // too, 64 of a token sharing a scale
  kQ8,    // the text tower: 8 bits, 32 weights sharing a scale
  kQ4,    // the text tower: 4 bits, 32 weights sharing a scale and an offset
};

// How keys and values are kept. Whatever the weights are.
enum class KvCacheType {
  kAuto,  // f32 when the weights are f32, else bf16
  kF32,
  kBf16,
  kQ8,  // 8 bits, the key and the value of a token in one head having a scale each: 53 % of bf16 for heads of 64
};

// None of these changes an answer, but for dtype, kv_cache_dtype and max_model_len.
struct EngineOptions {
  ComputeType dtype = ComputeType::kAuto;
  KvCacheType kv_cache_dtype = KvCacheType::kAuto;
  int num_threads = 0;                              // 0: the CPUs this process may use
  std::optional<int> max_model_len = std::nullopt;  // most tokens of prompt and answer; default: the checkpoint's
                                                    // max_position_embeddings
  int max_num_seqs = 16;                            // sequences computed at the same time; more wait
  int max_waiting = 256;                            // requests that may wait; more are refused with kOverloaded
  int max_num_batched_tokens = 512;                 // rows of a step: prompts are computed in chunks of at most so many
  int page_size = 128;                              // tokens of a page of the KV cache, a multiple of 64
  std::optional<size_t> kv_cache_bytes = std::nullopt;  // default: max_num_seqs sequences of 2048 tokens, and at least
                                                        // one of max_model_len
  bool enable_prefix_caching = true;                    // prompts that begin alike are computed once, pictures included
  size_t vision_cache_bytes = size_t{128} << 20;  // features of tiles that are kept after their request is through
  size_t pixel_cache_bytes = size_t{16} << 20;    // tiles that wait for the vision tower; beyond it pictures are
                                                  // decoded again when their turn comes
  bool speculative = true;                        // tokens that repeat the text so far are guessed and verified
  PictureDecoder picture_decoder = {};            // as Processor::load takes it
  bool allow_nonfinite = false;                   // load weights with NaN or Inf; Engine::nonfinite names them
};

enum class FinishReason { kStop, kLength, kCancelled };
std::string_view finish_reason_name(FinishReason reason);  // "stop", "length", "cancelled"

struct Timings {
  double preprocess_ms = 0;  // template, decoding, cutting, tokenising
  double queue_ms = 0;       // from then to the first step that computes for this request
  double vision_ms = 0;      // encoder and connector, the tiles that this request needed
  double prefill_ms = 0;     // steps of the text tower with rows of the prompt, the first token's logits included
  double ttft_ms = 0;        // from submit() to the first token
  double decode_ms = 0;      // from the first token to the last
  double decode_tokens_per_s = 0;
};

struct Request {
  // What to answer: messages through the chat template, or one of the two below instead.
  std::vector<Message> messages = {};
  PromptOptions prompt = {};
  // Plain text without template. Control tokens in it are plain text.
  std::optional<std::string> text = std::nullopt;
  // Ids below the vocabulary's size. An image token among them is an ordinary token: it has no picture.
  std::optional<std::vector<int32_t>> token_ids = std::nullopt;

  SamplingParams sampling = {};
  int n = 1;  // answers, which share the computed prompt. Answer i > 0 draws with a seed made from `seed` and i
  std::optional<int> logprobs = std::nullopt;  // report each token's log probability, and so many of the likeliest
  std::optional<int> prompt_logprobs = std::nullopt;  // the same for the prompt's tokens; computes the whole prompt
  // Leave special tokens out of the text. Not set: yes, but for models that write their structure as special tokens
  // (DocTags). The token that ended the answer is never part of the text.
  std::optional<bool> skip_special_tokens = std::nullopt;
  bool include_stop_str_in_output = false;
  // The text of every choice is one of those that this describes, unless max_tokens or a stop string ends it early.
  // Error: kSchemaInvalid.
  std::optional<StructuredOutput> structured_output = std::nullopt;
  // Requests share cached prefixes and features only with requests of the same salt.
  std::string cache_salt = {};
};

struct TokenLogprob {
  int32_t id;
  float logprob;  // natural logarithm of softmax(logits), before any sampling parameter
};

// A token with what was asked about it.
struct TokenInfo {
  int32_t id;
  float logprob = 0;                   // when logprobs were asked for
  std::vector<TokenLogprob> top = {};  // the likeliest, best first
};

struct Usage {
  int prompt_tokens = 0;
  int cached_tokens = 0;      // of these, not computed because a cached prefix had them
  int image_tokens = 0;       // of the prompt, carry features
  int tiles = 0;              // of all pictures
  int completion_tokens = 0;  // of all choices
};

// What happens to a request, in this order: kPrompt once; kTiles and kTokens as they come; kChoice once for each choice
// that ended; kEnd once and last. A request that is refused, fails or is cancelled has its kEnd too.
struct Event {
  enum class Type {
    kPrompt,  // the prompt is tokenised: `usage` (but for the completion), prompt_token_ids, `seed`
    kTiles,   // `tiles_done` of usage.tiles tiles are encoded or were at hand
    kTokens,  // new tokens of a choice, and the text that became certain (may be empty)
    kChoice,  // the choice ended: `finish_reason`, and the rest of its text
    kEnd,     // `usage`, `timings`; `error` when the request was refused, cancelled or failed
  };
  Type type;
  int choice = 0;
  std::string text = {};
  std::vector<TokenInfo> tokens = {};
  std::vector<int32_t> prompt_token_ids = {};
  std::vector<TokenInfo> prompt_logprobs = {};  // kEnd: one entry a token of the prompt, the first one empty
  uint64_t seed = 0;
  int tiles_done = 0;
  FinishReason finish_reason = FinishReason::kLength;
  Usage usage = {};
  Timings timings = {};
  std::optional<Error> error = std::nullopt;  // kCancelled when it was cancelled
};

using RequestId = uint64_t;  // never 0, never used twice

// Called with each event, one at a time, on threads of the engine; it must be quick and must not throw. It may call
// Engine::cancel and submit, and nothing else of the engine.
using EventSink = std::function<void(Event&&)>;

// The events of one request, to be waited for. Destroying it cancels the request.
// Threads: one reader.
class EventStream {
 public:
  EventStream(EventStream&&) noexcept;
  EventStream& operator=(EventStream&&) noexcept;
  ~EventStream();

  RequestId id() const;
  // The next event, or nothing when `timeout_ms` passed (negative: no timeout) or kEnd has been given out.
  std::optional<Event> next(int timeout_ms = -1);
  bool ended() const;  // kEnd has been given out

 private:
  friend class Engine;
  struct State;
  explicit EventStream(std::shared_ptr<State> state);
  std::shared_ptr<State> state_;
};

struct Choice {
  std::string text;
  std::vector<int32_t> token_ids;  // the stop token included, if one was chosen
  std::vector<TokenInfo> tokens;   // when logprobs were asked for: one entry a token
  FinishReason finish_reason = FinishReason::kLength;
};

struct Answer {
  std::vector<Choice> choices;  // Request::n of them
  std::vector<int32_t> prompt_token_ids;
  std::vector<TokenInfo> prompt_logprobs;
  Usage usage;
  uint64_t seed = 0;
  Timings timings;

  const std::string& text() const { return choices.front().text; }
  const std::vector<int32_t>& token_ids() const { return choices.front().token_ids; }
  FinishReason finish_reason() const { return choices.front().finish_reason; }
};

// What is reported while Engine::generate runs. All may be empty. Called on the thread of `generate`.
struct Observer {
  std::function<void(std::string_view delta)> text = {};  // new text of the first choice, whole characters
  std::function<void(int done, int total)> tiles = {};    // tiles encoded so far
  std::function<bool()> cancelled = {};                   // asked at every event, and at least every 20 ms
};

// Numbers since the engine was loaded, for metrics. Counters only grow. They are those of whole steps: published at the
// end of each, a moment behind its events.
struct EngineStats {
  int waiting = 0, running = 0;  // requests not yet through preparation or admission; sequences in steps
  int64_t pages = 0, pages_used = 0;
  int64_t requests = 0, finished_stop = 0, finished_length = 0, cancelled = 0, failed = 0, refused = 0;
  int64_t prompt_tokens = 0, cached_tokens = 0, generated_tokens = 0;
  int64_t tiles_encoded = 0, tiles_cached = 0;
  int64_t drafted_tokens = 0, accepted_tokens = 0;  // speculation
  int64_t steps = 0, preemptions = 0;
  double step_ms = 0;        // in all steps together
  double plan_ms = 0;        // of these, in the scheduler
  double since_step_ms = 0;  // since the last step ended while there was work; 0 when idle
};

// Owns the weights, the cache and the compute threads of one checkpoint.
// An answer depends on its request, on dtype and on kv_cache_dtype alone: not on what runs beside it, threads, chunks,
// caches, speculation or preemption. Threads: all functions may be called from several threads at once.
class Engine {
 public:
  static Engine load(const std::filesystem::path& folder, const EngineOptions& options = {});
  Engine(Engine&&) noexcept;
  Engine& operator=(Engine&&) noexcept;
  ~Engine();  // cancels what still runs; every request gets its kEnd before this returns

  // Hands a request over. Returns at once and never throws for what the request says: a refusal comes as kEnd with an
  // error, one of those of Processor::prompt, kContextLengthExceeded (with the number of image tokens), kInvalidValue,
  // kNumeric, kOutOfMemory, kOverloaded,
  // kSchemaInvalid, kCancelled. The sink may be called before submit returns.
  RequestId submit(Request request, EventSink sink);
  EventStream submit(Request request);
  // Whether submit would refuse any request now with kOverloaded: a cheap question before a request is made.
  bool is_full() const;
  // Ends a request within one step or one tile. False when there is no such request (any more).
  bool cancel(RequestId id);

  // Answers one request and returns when it is through. Throws the error of its kEnd, but for a cancelled one: that is
  // an answer with FinishReason::kCancelled.
  Answer generate(const Request& request, const Observer& observer = {});

  // What generation_config.json asks for: greedy unless do_sample is true there.
  SamplingParams default_sampling() const;
  const Processor& processor() const;
  const Idefics3Config& config() const;
  int max_model_len() const;
  std::string_view kernels() const;         // the CPU level in use: "ref", "avx2", "avx512", "amx"
  std::string_view dtype() const;           // "f32", "bf16", "int8", "q8" or "q4"
  std::string_view kv_cache_dtype() const;  // "f32", "bf16" or "q8"
  // Whether the text of an answer leaves special tokens out when a request does not say.
  bool skips_special_tokens() const;
  struct Memory {
    // Bytes; scratch is that of both towers. Caches take physical memory only where they were used.
    size_t weights, kv_cache, scratch, vision_cache, pixel_cache;
    size_t total() const { return weights + kv_cache + scratch + vision_cache + pixel_cache; }
  };
  Memory memory() const;
  EngineStats stats() const;

  // The tensors that hold a NaN or an Inf; empty unless EngineOptions::allow_nonfinite let them in.
  const std::vector<std::string>& nonfinite() const;

  // The model that answers, for callers inside the library (src/engine/engine_parts.h).
  struct Parts;
  Parts& parts() { return *parts_; }

 private:
  explicit Engine(std::unique_ptr<Parts> parts);
  std::unique_ptr<Parts> parts_;
};

}  // namespace idefics
