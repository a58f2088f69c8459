// An engine that says what a test wants. For tests.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <thread>
#include <vector>

#include "server/openai/backend.h"

namespace idefics::openai {

class FakeBackend : public Backend {
 public:
  // What it does with a request.
  struct Script {
    std::vector<std::string> pieces = {"Hello", " ", "world"};
    int repeat = 1;           // of all pieces
    int prompt_delay_ms = 0;  // before the prompt is ready
    int piece_delay_ms = 0;   // before each piece
    int tiles = 0;
    std::optional<Error> refusal = std::nullopt;  // instead of the prompt
    std::optional<Error> failure = std::nullopt;  // behind the pieces
    bool hang = false;                            // behind the pieces, until it is cancelled
    FinishReason reason = FinishReason::kStop;
  };

  ~FakeBackend() override {
    {
      const std::lock_guard lock(mutex_);
      for (auto& [id, cancelled] : open_) cancelled = true;
    }
    changed_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

  void set_script(Script script) {
    const std::lock_guard lock(mutex_);
    script_ = std::move(script);
  }
  idefics::Request last_request() const {
    const std::lock_guard lock(mutex_);
    return last_;
  }
  int submitted() const { return submitted_; }
  int cancelled() const { return cancelled_; }
  int open() const {
    const std::lock_guard lock(mutex_);
    return static_cast<int>(open_.size());
  }

  RequestId submit(idefics::Request request, EventSink sink) override {
    const std::lock_guard lock(mutex_);
    const RequestId id = ++next_id_;
    ++submitted_;
    open_[id] = false;
    const int n = request.n;
    last_ = std::move(request);
    threads_.emplace_back([this, id, n, script = script_, sink = std::move(sink)] { play(id, n, script, sink); });
    return id;
  }
  bool is_full() const override { return full; }
  bool cancel(RequestId id) override {
    {
      const std::lock_guard lock(mutex_);
      const auto found = open_.find(id);
      if (found == open_.end()) return false;
      if (!found->second) ++cancelled_;
      found->second = true;
    }
    changed_.notify_all();
    return true;
  }

  EngineStats stats() const override {
    EngineStats stats;
    stats.running = open();
    stats.since_step_ms = since_step_ms;
    return stats;
  }
  SamplingParams default_sampling() const override { return {}; }
  int max_model_len() const override { return 4096; }
  int vocab_size() const override { return 1000; }
  Prompt prompt(std::span<const Message>, const PromptOptions&) const override {
    Prompt prompt;
    prompt.ids = {1, 2, 3};
    return prompt;
  }
  std::vector<int32_t> tokenize(std::string_view text, bool) const override {
    return std::vector<int32_t>(text.begin(), text.end());
  }
  std::string detokenize(std::span<const int32_t> ids) const override {
    std::string out;
    for (const int32_t id : ids) out += static_cast<char>(id);
    return out;
  }
  std::string token_bytes(int32_t id) const override { return "t" + std::to_string(id); }

  std::atomic<double> since_step_ms = 0;
  std::atomic<bool> full = false;

 private:
  // False when the request was cancelled meanwhile.
  bool pause(RequestId id, int ms) {
    std::unique_lock lock(mutex_);
    return !changed_.wait_for(lock, std::chrono::milliseconds(ms), [&] { return open_.at(id); });
  }

  void play(RequestId id, int n, const Script& script, const EventSink& sink) {
    Usage usage{.prompt_tokens = 10, .cached_tokens = 4, .image_tokens = script.tiles, .tiles = script.tiles};
    const std::optional<Error> error = speak(id, n, script, sink, usage);
    {
      const std::lock_guard lock(mutex_);
      open_.erase(id);
    }
    sink({.type = Event::Type::kEnd, .usage = usage, .error = error});
  }

  std::optional<Error> speak(RequestId id, int n, const Script& script, const EventSink& sink, Usage& usage) {
    const Error cancelled(ErrorCode::kCancelled, "cancelled");
    if (!pause(id, script.prompt_delay_ms)) return cancelled;
    if (script.refusal) return script.refusal;
    sink({.type = Event::Type::kPrompt, .usage = usage});
    if (script.tiles > 0) sink({.type = Event::Type::kTiles, .tiles_done = script.tiles});
    int token = 0;
    for (int round = 0; round < script.repeat; ++round) {
      for (const std::string& piece : script.pieces) {
        if (!pause(id, script.piece_delay_ms)) return cancelled;
        for (int choice = 0; choice < n; ++choice) {
          ++usage.completion_tokens;
          sink({.type = Event::Type::kTokens,
                .choice = choice,
                .text = piece,
                .tokens = {{token, -0.5F, {{token, -0.5F}}}}});
        }
        ++token;
      }
    }
    while (script.hang && pause(id, 1000)) {
    }
    if (script.hang) return cancelled;
    if (script.failure) return script.failure;
    for (int choice = 0; choice < n; ++choice)
      sink({.type = Event::Type::kChoice, .choice = choice, .finish_reason = script.reason});
    return std::nullopt;
  }

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::map<RequestId, bool> open_;  // and whether it was cancelled
  std::vector<std::thread> threads_;
  Script script_;
  idefics::Request last_;
  RequestId next_id_ = 0;
  std::atomic<int> submitted_ = 0, cancelled_ = 0;
};

}  // namespace idefics::openai
