#include "engine/engine_loop.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "engine/failures.h"
#include "engine/logprobs.h"

namespace idefics {

namespace {

SchedulerOptions scheduler_options(const EngineOptions& options, const Network& network) {
  const Idefics3Config& config = network.config();
  return {.num_pages = static_cast<int32_t>(StepRunner::num_pages(options, network)),
          .page_size = options.page_size,
          .max_len = config.get_max_seq_len(),
          .max_sequences = options.max_num_seqs,
          .max_rows = options.max_num_batched_tokens,
          .max_tiles = 1,  // a running stream waits for one tile at most
          .tile_tokens = config.image_seq_len()};
}

// A seed of its own for every choice; the first one's is the request's.
uint64_t choice_seed(uint64_t seed, int choice) { return seed + static_cast<uint64_t>(choice) * 0xd1342543de82ef95u; }

// How long it takes at most until a request is ended that was cancelled while everything waits for pixels.
constexpr auto kCancelled = std::chrono::milliseconds(20);

// Ids that the model has no logit for cannot come.
grammar::TokenConstraint make_constraint(const Job& job, size_t vocab_size) {
  std::vector<int32_t> stop_ids = job.stop_ids;
  std::erase_if(stop_ids, [&](int32_t id) { return static_cast<size_t>(id) >= vocab_size; });
  return {job.grammar, std::move(stop_ids)};
}

// A constrained text that can only end is at its end.
bool is_whole(const ActiveSequence& sequence) { return sequence.constraint && sequence.constraint->must_stop(); }

// Features that are no numbers would be found again by every request with this picture.
void check_features(std::span<const float> features, const TileSpan& span) {
  const auto finite = [](float x) { return std::isfinite(x); };
  if (std::ranges::all_of(features, finite)) return;
  throw Error(ErrorCode::kNumeric,
              fmt::format("picture {}, tile {}: the vision tower computed NaN or Inf", span.image + 1, span.tile + 1));
}

}  // namespace

bool writes_special_tokens(const Processor& processor) {
  const Tokenizer& tokenizer = processor.parts().tokenizer;
  const auto id = tokenizer.find_token("<doctag>");
  return id && tokenizer.is_special(*id);
}

EngineLoop::EngineLoop(const EngineOptions& options, const Network& network, const Processor& processor,
                       OpenRequests& open, StepRunner& runner, OrderPixels order_pixels)
    : options_(options),
      processor_(processor),
      open_(open),
      runner_(runner),
      order_pixels_(std::move(order_pixels)),
      scheduler_options_(scheduler_options(options, network)),
      scheduler_(make_scheduler()),
      scratch_(network.config().text_config.vocab_size),
      skip_special_tokens_(!writes_special_tokens(processor)),
      thread_([this] { run(); }) {}

EngineLoop::~EngineLoop() {
  {
    const std::lock_guard lock(inbox_mutex_);
    stop_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

void EngineLoop::post(std::shared_ptr<Job> job) {
  {
    const std::lock_guard lock(inbox_mutex_);
    inbox_.push_back(std::move(job));
  }
  wake_.notify_one();
}

void EngineLoop::pixels_came() {
  {
    const std::lock_guard lock(inbox_mutex_);
    pixels_came_ = true;
  }
  wake_.notify_one();
}

void EngineLoop::run() {
  while (take_arrivals()) {
    try {
      take_pixels();
      end_cancelled();
      if (scheduler_->has_work()) step();
    } catch (...) {
      start_over(current_error());
    }
    retired_.clear();
  }
  for (const auto& [id, request] : active_) request->job->cancelled = true;
  end_cancelled();
}

// A fault between the steps, where nobody can say what is whole: every request ends, and the engine begins anew with
// empty caches.
void EngineLoop::start_over(const Error& error) {
  sequences_.clear();
  while (!active_.empty()) {
    const std::shared_ptr<Job> job = active_.begin()->second->job;
    active_.erase(active_.begin());
    open_.end(*job, error);
  }
  runner_.vision().clear();
  scheduler_ = make_scheduler();
}

std::unique_ptr<Scheduler> EngineLoop::make_scheduler() {
  return std::make_unique<Scheduler>(scheduler_options_, [this](const TileKey& key) {
    const bool found = runner_.vision().find_and_pin(key);
    stats_.tiles_cached += found;
    return found;
  });
}

// Waits while there is nothing to do; false when the engine is to stop.
bool EngineLoop::take_arrivals() {
  std::vector<std::shared_ptr<Job>> arrivals;
  {
    std::unique_lock lock(inbox_mutex_);
    if (!scheduler_->has_work()) {
      publish_stats(0);
      wake_.wait(lock, [&] { return stop_ || !inbox_.empty(); });
    } else if (waits_for_pixels_) {
      wake_.wait_for(lock, kCancelled, [&] { return stop_ || pixels_came_ || !inbox_.empty(); });
    }
    pixels_came_ = false;
    arrivals.swap(inbox_);
    if (stop_) {
      for (const auto& job : arrivals) open_.end(*job, cancelled_error());
      return false;
    }
  }
  for (auto& job : arrivals) start(std::move(job));
  return true;
}

void EngineLoop::start(std::shared_ptr<Job> job) {
  Job& j = *job;
  Event prompt;
  std::optional<SequenceId> submitted;
  try {
    if (j.cancelled) throw cancelled_error();
    prompt = {.type = Event::Type::kPrompt, .prompt_token_ids = j.prompt.ids, .seed = j.seed, .usage = j.usage};
    auto request = std::make_unique<ActiveRequest>(std::move(job));
    const SamplingParams& sampling = j.request.sampling;
    auto sequence = std::make_unique<ActiveSequence>(
        *request, 0, Sampler(sampling, j.stop_ids, choice_seed(j.seed, 0), scratch_),
        OutputText(processor_.parts().tokenizer, j.request.skip_special_tokens.value_or(skip_special_tokens_),
                   sampling.stop, j.request.include_stop_str_in_output));
    sequence->tokens = j.prompt.ids;
    sequence->keys = j.keys;
    if (j.grammar) sequence->constraint = make_constraint(j, scratch_.count.size());
    const auto [id, max_new] = scheduler_->submit(
        {.num_prompt_tokens = j.usage.prompt_tokens,
         .max_new_tokens = sampling.max_tokens > 0 ? sampling.max_tokens : std::numeric_limits<int32_t>::max(),
         .tiles = j.tiles,
         .keys = j.keys.keys(),
         .arrival = static_cast<int64_t>(j.id)});
    submitted = sequence->id = id;
    sequence->max_new_tokens = max_new;
    sequence->tokens.reserve(j.prompt.ids.size() + static_cast<size_t>(max_new) + PromptLookup::kMost);
    request->sequences.push_back(id);
    sequences_.emplace(id, std::move(sequence));
    active_.emplace(j.id, std::move(request));
  } catch (...) {
    if (submitted) {
      scheduler_->cancel(*submitted);
      sequences_.erase(*submitted);
    }
    open_.end(j, current_error());
    return;
  }
  stats_.prompt_tokens += j.usage.prompt_tokens;
  j.sink(std::move(prompt));
}

void EngineLoop::end_cancelled() {
  for (auto it = active_.begin(); it != active_.end();) {
    ActiveRequest& request = *(it++)->second;  // end() takes it off the list
    if (!request.job->cancelled) continue;
    while (!request.sequences.empty())
      finish_choice(*sequences_.at(request.sequences.front()), FinishReason::kCancelled);
    end(request, cancelled_error());
  }
}

// Sequences go on whose pixels were brought.
void EngineLoop::take_pixels() {
  for (auto it = active_.begin(); it != active_.end();) {
    ActiveRequest& request = *(it++)->second;  // end() takes it off the list
    if (!request.order || !request.order->done) continue;
    const std::shared_ptr<PixelOrder> order = std::move(request.order);
    if (order->error) {
      end(request, order->error);
      continue;
    }
    request.job->pictures.come_back(order->picture, std::move(order->tiles));
    for (const SequenceId id : request.sequences) scheduler_->hold_tiles(id, false);
  }
}

// Until they are here all sequences of the request wait, since they share its pictures.
void EngineLoop::order_pixels(ActiveRequest& request, int picture) {
  if (!request.order) {
    request.order = std::make_shared<PixelOrder>(request.job, picture);
    order_pixels_(request.order);
  }
  for (const SequenceId id : request.sequences) scheduler_->hold_tiles(id, true);
}

// ---- a step ----

void EngineLoop::step() {
  const Stopwatch clock;
  const StepPlan& plan = scheduler_->plan();
  stats_.plan_ms += clock.ms();
  waits_for_pixels_ = plan.empty();
  run_step(plan);
  stats_.steps += !plan.empty();
  publish_stats(clock.ms());
}

void EngineLoop::run_step(const StepPlan& plan) {
  for (const TileKey& key : plan.dropped) runner_.vision().unpin(key);
  for (const SequenceId id : plan.preempted) sequences_.at(id)->preempted = true;
  runner_.copy_pages(plan.copies);
  note_start(plan);
  if (!try_rows(plan)) return;
  outcome_.sampled.clear();
  outcome_.encoded.clear();
  sample(plan);
  encode_tiles(plan);
  const Stopwatch clock;
  scheduler_->commit(outcome_);
  stats_.plan_ms += clock.ms();
  report_tiles();
}

// False when the step failed: it is abandoned and will be planned again, without the requests that cannot be helped.
bool EngineLoop::try_rows(const StepPlan& plan) {
  const Stopwatch clock;
  try {
    if (hooks.before_rows) hooks.before_rows(stats_.steps);
    row_tokens_.clear();
    for (const StepPlan::Rows& rows : plan.rows) {
      const ActiveSequence& s = *sequences_.at(rows.sequence);
      row_tokens_.push_back({s.tokens, s.drafts, s.request->job->tiles});
    }
    if (!plan.rows.empty()) runner_.run_rows(plan, row_tokens_);
    report_prompt_logprobs(plan);
    failed_before_ = false;
  } catch (...) {
    const Error error = current_error();
    std::vector<SequenceId> taking_part;
    for (const StepPlan::Rows& rows : plan.rows) taking_part.push_back(rows.sequence);
    scheduler_->abandon();
    for (const SequenceId id : taking_part) {
      const auto it = sequences_.find(id);
      if (failed_before_ && it != sequences_.end()) end(*it->second->request, error);
    }
    failed_before_ = !failed_before_;
    return false;
  }
  for (const StepPlan::Rows& rows : plan.rows) {
    const ActiveSequence& s = *sequences_.at(rows.sequence);
    if (!s.request->answered) s.request->job->timings.prefill_ms += clock.ms();
  }
  return true;
}

// What the plan shows about a prompt's way: when it began, and what was found in the cache.
void EngineLoop::note_start(const StepPlan& plan) {
  const auto begin = [](ActiveRequest& request) {
    if (!request.started) request.job->timings.queue_ms = request.job->since_submit.ms() - request.job->prepared_ms;
    request.started = true;
  };
  for (const StepPlan::Tile& tile : plan.tiles) begin(*sequences_.at(tile.sequence)->request);
  for (const StepPlan::Rows& rows : plan.rows) {
    ActiveSequence& s = *sequences_.at(rows.sequence);
    begin(*s.request);
    if (s.request->answered) continue;
    const int32_t cached = s.preempted ? 0 : std::max(0, rows.context - s.computed);
    s.request->job->usage.cached_tokens += cached;
    stats_.cached_tokens += cached;
    s.computed = std::max(s.computed, rows.context + rows.num_rows);
  }
}

void EngineLoop::report_prompt_logprobs(const StepPlan& plan) {
  const auto most = static_cast<int32_t>(StepRunner::max_logit_rows(options_));
  for (const StepPlan::Rows& rows : plan.rows) {
    Job& job = *sequences_.at(rows.sequence)->request->job;
    const auto length = static_cast<int32_t>(job.prompt.ids.size());
    if (!job.request.prompt_logprobs) continue;
    // Row t tells of token t + 1.
    const int32_t end = std::min(rows.context + rows.num_rows, length - 1);
    for (int32_t first = rows.context; first < end; first += most) {
      logit_rows_.clear();
      for (int32_t t = first; t < std::min(first + most, end); ++t)
        logit_rows_.push_back(rows.first_row + t - rows.context);
      const Matrix<float> logits = runner_.logits(logit_rows_);
      for (int64_t i = 0; i < logits.rows(); ++i) {
        const auto t = static_cast<size_t>(first + i + 1);
        job.prompt_logprobs[t] = token_info({logits.row(i), static_cast<size_t>(logits.cols())}, job.prompt.ids[t],
                                            *job.request.prompt_logprobs);
      }
    }
  }
}

// ---- tokens ----

void EngineLoop::sample(const StepPlan& plan) {
  const int most = StepRunner::max_logit_rows(options_);
  std::vector<StepPlan::Rows> group;
  logit_rows_.clear();
  for (const StepPlan::Rows& rows : plan.rows) {
    if (!rows.samples) continue;
    if (std::ssize(logit_rows_) + 1 + rows.num_drafts > most) {
      sample_group(group);
      group.clear();
      logit_rows_.clear();
    }
    group.push_back(rows);
    for (int32_t i = rows.num_rows - 1 - rows.num_drafts; i < rows.num_rows; ++i)
      logit_rows_.push_back(rows.first_row + i);
  }
  if (!group.empty()) sample_group(group);
}

void EngineLoop::sample_group(std::span<const StepPlan::Rows> group) {
  const Matrix<float> logits = runner_.logits(logit_rows_);
  int64_t first = 0;
  for (const StepPlan::Rows& rows : group) {
    sample_sequence(rows, logits.row_range(first, 1 + rows.num_drafts));
    first += 1 + rows.num_drafts;
  }
}

void EngineLoop::sample_sequence(const StepPlan::Rows& rows, Matrix<float> logits) {
  ActiveSequence& sequence = *sequences_.at(rows.sequence);
  const std::shared_ptr<Job> job = sequence.request->job;
  if (!sequence.request->answered && job->request.n > 1) {
    const std::vector<ActiveSequence*> choices = fork_choices(sequence);
    const std::vector<float> shared(logits.row(0), logits.row(0) + logits.cols());
    for (ActiveSequence* choice : choices) {
      std::ranges::copy(shared, logits.row(0));
      if (!try_tokens(*choice, 0, logits)) return;
    }
  } else {
    try_tokens(sequence, rows.num_drafts, logits);
  }
}

// What fails here ends this request; false when it did.
bool EngineLoop::try_tokens(ActiveSequence& sequence, int num_drafts, Matrix<float> logits) {
  ActiveRequest& request = *sequence.request;
  try {
    choose_tokens(sequence, num_drafts, logits);
    return true;
  } catch (...) {
    end(request, current_error());
    return false;
  }
}

// The prompt of several choices is through: from here each goes its own way. What fails here leaves the scheduler with
// sequences that nobody knows, and is a fault of the engine.
std::vector<ActiveSequence*> EngineLoop::fork_choices(ActiveSequence& parent) {
  ActiveRequest& request = *parent.request;
  const Job& job = *request.job;
  std::vector<ActiveSequence*> choices{&parent};
  for (const SequenceId id : scheduler_->fork(parent.id, job.request.n - 1)) {
    const auto choice = static_cast<int>(choices.size());
    auto child = std::make_unique<ActiveSequence>(
        request, choice, Sampler(job.request.sampling, job.stop_ids, choice_seed(job.seed, choice), scratch_),
        parent.text);
    child->id = id;
    child->max_new_tokens = parent.max_new_tokens;
    child->tokens.reserve(parent.tokens.capacity());
    child->tokens = parent.tokens;
    child->keys = parent.keys;
    child->constraint = parent.constraint;
    choices.push_back(child.get());
    request.sequences.push_back(id);
    sequences_.emplace(id, std::move(child));
  }
  return choices;
}

// Takes tokens as long as the guesses turn out right, tells of them, and makes the next guess.
void EngineLoop::choose_tokens(ActiveSequence& sequence, int num_drafts, Matrix<float> logits) {
  ActiveRequest& request = *sequence.request;
  Job& job = *request.job;
  Event event{.type = Event::Type::kTokens, .choice = sequence.choice};
  bool finished = false;
  int taken = 0;
  while (!finished && taken <= num_drafts) {
    const std::span<float> row(logits.row(taken), static_cast<size_t>(logits.cols()));
    if (hooks.after_logits)
      hooks.after_logits(job.id, sequence.choice, static_cast<int>(sequence.generated().size()), row);
    if (job.request.logprobs) raw_logits_.assign(row.begin(), row.end());
    const int32_t id = choose_token(sequence, row);
    event.tokens.push_back(job.request.logprobs ? token_info(raw_logits_, id, *job.request.logprobs)
                                                : TokenInfo{.id = id});
    finished = accept(sequence, id, event);
    ++taken;
    if (taken <= num_drafts && sequence.drafts[static_cast<size_t>(taken - 1)] != id) break;
  }
  sequence.lookup.note(num_drafts, taken - 1);
  stats_.drafted_tokens += num_drafts;
  stats_.accepted_tokens += taken - 1;
  stats_.generated_tokens += taken;
  job.usage.completion_tokens += taken;
  if (!request.answered) {
    request.answered = true;
    request.first_token_ms = job.timings.ttft_ms = job.since_submit.ms();
  }

  sequence.drafts.clear();
  if (!finished) guess(sequence);
  sequence.keys.extend(sequence.tokens, job.tiles, processor_.config().image_seq_len);
  outcome_.sampled.push_back({.sequence = sequence.id,
                              .num_tokens = taken,
                              .finished = finished,
                              .num_drafts = static_cast<int32_t>(sequence.drafts.size()),
                              .keys = sequence.keys.keys()});
  job.sink(std::move(event));
  if (!finished) return;
  const bool stopped =
      sequence.text.stopped() || is_whole(sequence) || std::ranges::binary_search(job.stop_ids, sequence.tokens.back());
  finish_choice(sequence, stopped ? FinishReason::kStop : FinishReason::kLength);
  if (request.sequences.empty()) end(request, std::nullopt);
}

// True when the token is the choice's last.
bool EngineLoop::accept(ActiveSequence& sequence, int32_t id, Event& event) {
  sequence.tokens.push_back(id);
  if (std::ranges::binary_search(sequence.request->job->stop_ids, id)) return true;  // which is no text
  event.text += sequence.text.push(id);
  return sequence.text.stopped() || is_whole(sequence) || std::ssize(sequence.generated()) >= sequence.max_new_tokens;
}

int32_t EngineLoop::choose_token(ActiveSequence& sequence, std::span<float> logits) {
  if (sequence.constraint) {
    allowed_.resize(std::max((logits.size() + 31) / 32, sequence.request->job->grammar->vocabulary().mask_words()));
    sequence.constraint->mask(allowed_);
    constexpr float kInfinity = std::numeric_limits<float>::infinity();
    for (size_t i = 0; i < logits.size(); ++i) {
      const bool allowed = (allowed_[i / 32] >> (i % 32) & 1) != 0;
      if (!allowed && logits[i] < kInfinity) logits[i] = -kInfinity;  // NaN and Inf stay for the sampler to find
    }
  }
  const int32_t id = sequence.sampler.choose(sequence.prompt(), sequence.generated(), logits);
  if (sequence.constraint) IDEFICS_CHECK(sequence.constraint->accept(id));
  return id;
}

// What may come next: what the grammar leaves no choice about, or what the text so far suggests.
void EngineLoop::guess(ActiveSequence& sequence) {
  if (!options_.speculative) return;
  if (sequence.constraint) sequence.drafts = sequence.constraint->forced_tokens();
  if (sequence.drafts.size() > PromptLookup::kMost) sequence.drafts.resize(PromptLookup::kMost);
  if (!sequence.drafts.empty()) return;
  const auto guess = sequence.lookup.propose(sequence.tokens);
  sequence.drafts.assign(guess.begin(), guess.end());
}

// ---- tiles ----

void EngineLoop::encode_tiles(const StepPlan& plan) {
  for (const StepPlan::Tile& tile : plan.tiles) {
    const auto it = sequences_.find(tile.sequence);
    if (it == sequences_.end()) continue;  // ended in this step
    ActiveRequest& request = *it->second->request;
    Job& job = *request.job;
    const Stopwatch clock;
    try {
      const TileSpan& span = job.prompt.tiles[static_cast<size_t>(tile.tile)];
      const PromptImage& image = job.prompt.images[static_cast<size_t>(span.image)];
      const auto rgb = job.pictures.tile(image, span.image, span.tile);
      if (!rgb) {
        order_pixels(request, span.image);
        continue;
      }
      runner_.encode(tile.key, *rgb, [&](std::span<float> features) {
        if (hooks.after_tile) hooks.after_tile(job.id, tile.tile, features);
        check_features(features, span);
      });
      outcome_.encoded.push_back(tile.key);
      ++stats_.tiles_encoded;
      job.timings.vision_ms += clock.ms();
    } catch (...) {
      end(request, current_error());
    }
  }
}

// Tells requests how many of their tiles are behind them or at hand.
void EngineLoop::report_tiles() {
  for (const auto& [id, request] : active_) {
    Job& job = *request->job;
    if (request->tiles_done == job.usage.tiles || !request->started) continue;
    int done = 0;
    const int32_t computed = sequences_.at(request->sequences.front())->computed;
    for (const SequenceTile& tile : job.tiles) done += tile.first < computed || runner_.vision().contains(tile.key);
    if (done <= request->tiles_done) continue;
    request->tiles_done = done;
    if (done == job.usage.tiles) {
      for (int i = 0; i < std::ssize(job.prompt.images); ++i) job.pictures.let_go(i);
    }
    job.sink({.type = Event::Type::kTiles, .tiles_done = done, .usage = job.usage});
  }
}

// ---- ends ----

void EngineLoop::finish_choice(ActiveSequence& sequence, FinishReason reason) {
  ActiveRequest& request = *sequence.request;
  const SequenceId id = sequence.id;
  if (reason == FinishReason::kCancelled) scheduler_->cancel(id);  // otherwise commit() takes it away
  stats_.finished_stop += reason == FinishReason::kStop;
  stats_.finished_length += reason == FinishReason::kLength;
  request.job->sink({.type = Event::Type::kChoice,
                     .choice = sequence.choice,
                     .text = sequence.text.finish(),
                     .finish_reason = reason});
  std::erase(request.sequences, id);
  retire(id);
}

// The outcome of the step still refers to the keys of a sequence that ended in it.
void EngineLoop::retire(SequenceId id) {
  const auto it = sequences_.find(id);
  if (it == sequences_.end()) return;
  retired_.push_back(std::move(it->second));
  sequences_.erase(it);
}

void EngineLoop::end(ActiveRequest& request, std::optional<Error> error) {
  for (const SequenceId id : request.sequences) {
    scheduler_->cancel(id);
    retire(id);
  }
  const std::shared_ptr<Job> job = request.job;
  Timings& t = job->timings;
  const int decoded = job->usage.completion_tokens - job->request.n;
  if (request.answered && decoded > 0) {
    t.decode_ms = job->since_submit.ms() - request.first_token_ms;
    t.decode_tokens_per_s = 1000 * decoded / t.decode_ms;
  }
  active_.erase(job->id);
  open_.end(*job, std::move(error));
}

void EngineLoop::publish_stats(double step_ms) {
  stats_.step_ms += step_ms;
  stats_.running = scheduler_->num_running();
  stats_.pages = scheduler_->options().num_pages;
  stats_.pages_used = stats_.pages - scheduler_->pages().num_available();
  stats_.preemptions = scheduler_->counters().preemptions;
  const std::lock_guard lock(stats_mutex_);
  published_ = stats_;
  started_ = 0;
  for (const auto& [id, request] : active_) started_ += request->started;
  busy_ = scheduler_->has_work();
  last_step_ = std::chrono::steady_clock::now();
}

void EngineLoop::report(EngineStats& stats) const {
  const int open = open_.count();
  const std::lock_guard lock(stats_mutex_);
  stats = published_;
  stats.waiting = std::max(0, open - started_);
  if (busy_) {
    stats.since_step_ms =
        std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - last_step_).count();
  }
}

}  // namespace idefics
