#include "server/openai/generation.h"

#include <fmt/format.h>

#include <chrono>

namespace idefics::openai {

namespace {

constexpr std::string_view kKeepAlive = ": keep-alive\n\n";

int64_t now() {
  return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

std::string event_bytes(std::string_view data) { return fmt::format("data: {}\n\n", data); }

}  // namespace

Generation::Generation(std::shared_ptr<http::Exchange> exchange, Backend& backend, GenerationRequest request,
                       int keep_alive_ms, std::function<void(const GenerationEnd&)> ended)
    : exchange_(std::move(exchange)),
      backend_(backend),
      request_(std::move(request)),
      keep_alive_ms_(keep_alive_ms),
      ended_(std::move(ended)) {
  const std::string name = request_.request_id.value_or(exchange_->request().id);
  head_ = {.id = (request_.chat ? "chatcmpl-" : "cmpl-") + name,
           .created = now(),
           .model = request_.model,
           .chat = request_.chat,
           .logprobs = request_.engine.logprobs.has_value()};
  choices_.resize(static_cast<size_t>(request_.engine.n));
  reasons_.resize(choices_.size(), FinishReason::kCancelled);
}

void Generation::start() {
  idefics::Request request = std::move(request_.engine);
  request_.engine = {};
  id_ = backend_.submit(std::move(request), [self = shared_from_this()](Event&& event) {
    // The engine's thread only hands it over.
    self->exchange_->post([self, kept = std::make_shared<Event>(std::move(event))] { self->on_event(*kept); });
  });
  // The status of an answer is best decided when the prompt is known to be good, but nobody waits in silence for ever.
  if (request_.stream) {
    exchange_->on_silence(2 * keep_alive_ms_, [self = shared_from_this()] {
      if (!self->streaming_) self->begin_stream();
    });
  }
  exchange_->on_gone([self = shared_from_this()] {
    self->gone_ = true;
    self->backend_.cancel(self->id_);
  });
}

void Generation::on_event(Event& event) {
  if (ended_already_) return;
  switch (event.type) {
    case Event::Type::kPrompt: return on_prompt(event);
    case Event::Type::kTiles:
      if (streaming_ && request_.include_progress) send(progress_chunk(head_, event.tiles_done, tiles_));
      return;
    case Event::Type::kTokens: return on_tokens(event);
    case Event::Type::kChoice: return on_choice(event);
    case Event::Type::kEnd: return on_end(event);
  }
}

// From here on little can be wrong with the request: a refusal before has its own status.
void Generation::on_prompt(const Event& event) {
  tiles_ = event.usage.tiles;
  if (request_.stream && !streaming_) begin_stream();
  if (streaming_ && request_.include_progress && tiles_ > 0) send(progress_chunk(head_, 0, tiles_));
}

void Generation::begin_stream() {
  streaming_ = true;
  exchange_->begin_stream({.status = 200,
                           .headers = {{"content-type", "text/event-stream; charset=utf-8"},
                                       {"cache-control", "no-cache"},
                                       {"x-accel-buffering", "no"}}},
                          std::string(kKeepAlive), keep_alive_ms_);
  for (size_t i = 0; head_.chat && i < choices_.size(); ++i) send(role_chunk(head_, static_cast<int>(i)));
}

void Generation::on_tokens(Event& event) {
  ChoiceText& choice = choices_.at(static_cast<size_t>(event.choice));
  if (!streaming_) {
    choice.text += event.text;
    if (head_.logprobs) choice.tokens.insert(choice.tokens.end(), event.tokens.begin(), event.tokens.end());
    return;
  }
  if (event.text.empty() && (!head_.logprobs || event.tokens.empty())) return;
  const ChoiceText piece{std::move(event.text), std::move(event.tokens), choice.bytes_before};
  choice.bytes_before += piece.text.size();
  send(text_chunk(head_, event.choice, piece, backend_));
}

void Generation::on_choice(Event& event) {
  on_tokens(event);
  reasons_.at(static_cast<size_t>(event.choice)) = event.finish_reason;
  if (streaming_) send(finish_chunk(head_, event.choice, event.finish_reason));
}

void Generation::on_end(Event& event) {
  request_.place.reset();
  GenerationEnd end{event.usage, event.timings, {}, std::nullopt, {}, gone_};
  for (const FinishReason reason : reasons_) {
    if (reason != FinishReason::kCancelled) end.reasons.push_back(reason);
  }
  if (event.error) {
    end.error = error_of(*event.error);
    if (end.error->status >= 500) end.detail = event.error->what();
    fail(*end.error);
  } else {
    finish(event);
  }
  end_with(end);
}

void Generation::abandon(const ApiError& error) {
  exchange_->post([self = shared_from_this(), error] {
    if (self->ended_already_) return;
    self->request_.place.reset();
    self->fail(error);
    self->end_with(
        {.usage = {}, .timings = {}, .reasons = {}, .error = error, .detail = error.what(), .gone = self->gone_});
  });
}

void Generation::end_with(const GenerationEnd& end) {
  ended_already_ = true;
  ended_(end);
}

ApiError Generation::error_of(const Error& error) const {
  ApiError out = from_engine(error, request_.picture_params);
  if (out.status != 400) return out;
  if (out.code == "schema_invalid" && request_.constraint) out.param = request_.constraint->param;
  if (out.param.empty() && out.code != "invalid_value") out.param = request_.chat ? "messages" : "prompt";
  return out;
}

void Generation::fail(const ApiError& error) {
  if (!streaming_) return exchange_->respond(to_response(error));
  send(to_json(error));
  exchange_->end_stream(true);
}

void Generation::finish(const Event& event) {
  if (streaming_) {
    if (request_.include_usage) send(usage_chunk(head_, event.usage, event.timings));
    exchange_->send(event_bytes("[DONE]"));
    return exchange_->end_stream(false);
  }
  json::object answer = answer_json(head_, choices_, reasons_, backend_);
  answer["usage"] = usage_json(event.usage);
  answer["timings"] = timings_json(event.usage, event.timings);
  if (!event.prompt_logprobs.empty()) answer["prompt_logprobs"] = prompt_logprobs_json(event.prompt_logprobs, backend_);
  exchange_->respond(json_response(200, answer));
}

void Generation::send(const json::object& chunk) { exchange_->send(event_bytes(json::serialize(chunk))); }

}  // namespace idefics::openai
