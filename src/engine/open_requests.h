// The requests that were handed in and have not ended: the one place that gives them numbers and ends them.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>

#include "engine/content_keys.h"
#include "engine/pictures.h"
#include "engine/stopwatch.h"
#include "grammar/compiled_grammar.h"
#include "idefics/engine.h"

namespace idefics {

// One request on its way: made by submit(), prepared by a thread of preparation, then the engine thread's.
struct Job {
  Job(RequestId number, Request wanted, EventSink events)
      : id(number), request(std::move(wanted)), sink(std::move(events)) {}

  const RequestId id;
  Request request;
  const EventSink sink;
  std::atomic<bool> cancelled{false};
  const Stopwatch since_submit;

  // Made by preparation.
  Prompt prompt;      // its pictures' tiles are in `pictures`
  Pictures pictures;  // empty when the request has none
  std::vector<SequenceTile> tiles;
  BlockKeyChain keys;                                       // of the prompt
  std::vector<int32_t> stop_ids;                            // sorted
  std::shared_ptr<const grammar::CompiledGrammar> grammar;  // of structured output
  uint64_t seed = 0;
  double prepared_ms = 0;  // since submit

  std::vector<TokenInfo> prompt_logprobs;
  Usage usage;
  Timings timings;
};

// Threads: any.
class OpenRequests {
 public:
  std::shared_ptr<Job> open(Request request, EventSink sink);
  // Sends the one kEnd of a request. REQUIRES: it is open.
  void end(Job& job, std::optional<Error> error);
  // Marks a request; whoever holds it ends it at the next opportunity.
  bool cancel(RequestId id);
  int count() const;

  struct Counters {
    int64_t opened = 0, cancelled = 0, failed = 0, refused = 0;  // refused: failed before its prompt was known
  };
  Counters counters() const;

 private:
  mutable std::mutex mutex_;
  std::map<RequestId, std::shared_ptr<Job>> open_;
  RequestId next_id_ = 1;
  Counters counters_;
};

}  // namespace idefics
