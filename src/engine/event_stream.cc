#include "engine/event_stream.h"

namespace idefics {

void EventStream::State::push(Event&& event) {
  {
    const std::lock_guard lock(mutex);
    if (event.type == Event::Type::kEnd)
      end = std::move(event);
    else
      events.push_back(std::move(event));
  }
  wake.notify_one();
}

EventStream::EventStream(std::shared_ptr<State> state) : state_(std::move(state)) {}
EventStream::EventStream(EventStream&&) noexcept = default;
EventStream& EventStream::operator=(EventStream&& other) noexcept {
  if (this == &other) return *this;
  EventStream old(std::move(*this));  // cancels
  state_ = std::move(other.state_);
  return *this;
}

EventStream::~EventStream() {
  if (!state_) return;
  if (const auto open = state_->open.lock()) open->cancel(state_->id);
}

RequestId EventStream::id() const { return state_->id; }

std::optional<Event> EventStream::next(int timeout_ms) {
  std::unique_lock lock(state_->mutex);
  if (state_->ended) return std::nullopt;
  const auto ready = [&] { return !state_->events.empty() || state_->end; };
  if (timeout_ms < 0) {
    state_->wake.wait(lock, ready);
  } else if (!state_->wake.wait_for(lock, std::chrono::milliseconds(timeout_ms), ready)) {
    return std::nullopt;
  }
  if (state_->events.empty()) {
    state_->ended = true;
    return std::move(state_->end);
  }
  Event event = std::move(state_->events.front());
  state_->events.pop_front();
  return event;
}

bool EventStream::ended() const {
  const std::lock_guard lock(state_->mutex);
  return state_->ended;
}

}  // namespace idefics
