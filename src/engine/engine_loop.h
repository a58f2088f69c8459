// The engine thread: takes prepared requests, runs step after step, and tells what came of it.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <thread>
#include <unordered_map>

#include "engine/active.h"
#include "engine/step_runner.h"

namespace idefics {

// For tests: what they may do to a running engine. To be set before the first request.
struct EngineHooks {
  std::function<void(int64_t step)> before_rows;  // may throw
  std::function<void(RequestId, int choice, int token, std::span<float> logits)> after_logits;
  std::function<void(RequestId, int tile, std::span<float> features)> after_tile;
};

// Owns everything about a request from post() to its end. A step is: plan, copies of pages, rows, tokens and events,
// tiles, commit. Tokens are told before tiles are encoded, so a stream waits for a tile once and not twice.
//
// A tile whose pixels were let go of is encoded when preparation has brought them; its sequence waits for that, and
// nobody else does.
//
// Failures: what goes wrong with one request ends that one. A step that fails as a whole is tried once more; when it
// fails again, the requests that had a part in it end.
class EngineLoop {
 public:
  using OrderPixels = std::function<void(std::shared_ptr<PixelOrder>)>;

  EngineLoop(const EngineOptions& options, const Network& network, const Processor& processor, OpenRequests& open,
             StepRunner& runner, OrderPixels order_pixels);
  // Ends what still runs as cancelled.
  ~EngineLoop();

  // Threads: any.
  void post(std::shared_ptr<Job> job);
  // An order is done.
  void pixels_came();
  // What the loop knows of EngineStats.
  void report(EngineStats& stats) const;

  EngineHooks hooks;

 private:
  using Sequences = std::unordered_map<SequenceId, std::unique_ptr<ActiveSequence>>;

  void run();
  bool take_arrivals();
  void start(std::shared_ptr<Job> job);
  void end_cancelled();
  void take_pixels();
  void order_pixels(ActiveRequest& request, int picture);

  void step();
  void run_step(const StepPlan& plan);
  bool try_rows(const StepPlan& plan);
  void note_start(const StepPlan& plan);
  void sample(const StepPlan& plan);
  void sample_group(std::span<const StepPlan::Rows> group);
  void sample_sequence(const StepPlan::Rows& rows, Matrix<float> logits);
  bool try_tokens(ActiveSequence& sequence, int num_drafts, Matrix<float> logits);
  std::vector<ActiveSequence*> fork_choices(ActiveSequence& parent);
  void choose_tokens(ActiveSequence& sequence, int num_drafts, Matrix<float> logits);
  int32_t choose_token(ActiveSequence& sequence, std::span<float> logits);
  bool accept(ActiveSequence& sequence, int32_t id, Event& event);
  void guess(ActiveSequence& sequence);
  void report_prompt_logprobs(const StepPlan& plan);
  void encode_tiles(const StepPlan& plan);
  void report_tiles();

  void finish_choice(ActiveSequence& sequence, FinishReason reason);
  void retire(SequenceId id);
  void end(ActiveRequest& request, std::optional<Error> error);
  void start_over(const Error& error);
  std::unique_ptr<Scheduler> make_scheduler();
  void publish_stats(double step_ms);

  const EngineOptions& options_;
  const Processor& processor_;
  OpenRequests& open_;
  StepRunner& runner_;
  const OrderPixels order_pixels_;
  const SchedulerOptions scheduler_options_;
  std::unique_ptr<Scheduler> scheduler_;
  SamplerScratch scratch_;
  const bool skip_special_tokens_;

  std::map<RequestId, std::unique_ptr<ActiveRequest>> active_;
  Sequences sequences_;
  std::vector<std::unique_ptr<ActiveSequence>> retired_;  // ended in this step
  StepOutcome outcome_;
  std::vector<RowTokens> row_tokens_;
  std::vector<int32_t> logit_rows_;
  std::vector<float> raw_logits_;  // [V] before the sampler, for log probabilities
  std::vector<uint32_t> allowed_;  // [V / 32] tokens that a constraint allows
  bool failed_before_ = false;     // the last step
  bool waits_for_pixels_ = false;  // the last step had nothing else to do
  EngineStats stats_;              // this thread's copy

  std::mutex inbox_mutex_;
  std::condition_variable wake_;
  std::vector<std::shared_ptr<Job>> inbox_;
  bool pixels_came_ = false;
  bool stop_ = false;
  mutable std::mutex stats_mutex_;
  EngineStats published_;
  int started_ = 0;                                    // requests that a step has computed for
  std::chrono::steady_clock::time_point last_step_{};  // while there is work
  bool busy_ = false;
  std::thread thread_;
};

// DocTags models write their structure as special tokens, which are the answer and not decoration.
bool writes_special_tokens(const Processor& processor);

}  // namespace idefics
