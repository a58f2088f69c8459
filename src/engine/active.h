// What the engine thread knows about the requests in its hands.
#pragma once

#include <memory>
#include <vector>

#include "engine/open_requests.h"
#include "engine/output_text.h"
#include "engine/preparation.h"
#include "engine/prompt_lookup.h"
#include "engine/sampler.h"
#include "grammar/token_constraint.h"
#include "scheduling/scheduler.h"

namespace idefics {

// A request whose prompt is known.
struct ActiveRequest {
  explicit ActiveRequest(std::shared_ptr<Job> handed_over) : job(std::move(handed_over)) {}

  const std::shared_ptr<Job> job;
  std::vector<SequenceId> sequences;  // of its choices that have not ended
  bool started = false;               // a step has computed for it
  bool answered = false;              // the first token is there
  int tiles_done = 0;                 // as reported
  std::shared_ptr<PixelOrder> order;  // that its tiles wait for
  double first_token_ms = 0;          // since submit
};

// One choice of a request.
struct ActiveSequence {
  ActiveSequence(ActiveRequest& owner, int number, const Sampler& choosing, const OutputText& writing)
      : request(&owner), choice(number), sampler(choosing), text(writing) {}

  std::span<const int32_t> prompt() const { return request->job->prompt.ids; }
  std::span<const int32_t> generated() const { return std::span(tokens).subspan(prompt().size()); }

  ActiveRequest* request;
  int choice;
  SequenceId id = 0;
  int max_new_tokens = 0;
  std::vector<int32_t> tokens;  // of prompt and answer
  BlockKeyChain keys;
  Sampler sampler;
  OutputText text;
  std::optional<grammar::TokenConstraint> constraint;  // of structured output
  PromptLookup lookup;
  std::vector<int32_t> drafts;  // guesses at what follows `tokens`
  int32_t computed = 0;         // tokens of the prompt that are behind it, to see what a cache spared
  bool preempted = false;       // at some time: since then it is its own pages that are found again
};

}  // namespace idefics
