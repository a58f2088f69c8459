// One request for an answer on its way: from the engine's events to a response or a stream.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "server/http/exchange.h"
#include "server/openai/answer_json.h"
#include "server/openai/api_error.h"
#include "server/openai/requests.h"

namespace idefics::openai {

// How a request ended, for metrics and logs.
struct GenerationEnd {
  Usage usage;
  Timings timings;
  std::vector<FinishReason> reasons;  // of the choices that ended
  std::optional<ApiError> error;
  std::string detail;  // of an error of 500 and above: the engine's own words, for the log
  bool gone = false;   // the client went away
};

// Threads: start() and everything after it on the exchange's thread.
class Generation : public std::enable_shared_from_this<Generation> {
 public:
  // `backend` must outlive the engine's last event. `ended` is called once. A stream that is silent for `keep_alive_ms`
  // gets a comment.
  Generation(std::shared_ptr<http::Exchange> exchange, Backend& backend, GenerationRequest request, int keep_alive_ms,
             std::function<void(const GenerationEnd&)> ended);

  // Submits the request. What it says from then on goes to the exchange.
  void start();
  // 0 until start() has returned.
  RequestId id() const { return id_; }
  // Gives up on the engine: the client gets `error`, and what the engine may say later is not passed on. Any thread.
  void abandon(const ApiError& error);

 private:
  void on_event(Event& event);
  void on_prompt(const Event& event);
  void end_with(const GenerationEnd& end);
  void on_tokens(Event& event);
  void on_choice(Event& event);
  void on_end(Event& event);
  void fail(const ApiError& error);
  void finish(const Event& event);
  void begin_stream();
  void send(const json::object& chunk);
  ApiError error_of(const Error& error) const;

  const std::shared_ptr<http::Exchange> exchange_;
  Backend& backend_;
  GenerationRequest request_;
  const int keep_alive_ms_;
  const std::function<void(const GenerationEnd&)> ended_;
  AnswerHead head_;
  RequestId id_ = 0;
  bool streaming_ = false, gone_ = false, ended_already_ = false;
  int tiles_ = 0;
  std::vector<ChoiceText> choices_;
  std::vector<FinishReason> reasons_;
};

}  // namespace idefics::openai
