// The inside of an EventStream: a queue between the engine's threads and one reader.
#pragma once

#include <condition_variable>
#include <deque>
#include <mutex>

#include "engine/open_requests.h"

namespace idefics {

struct EventStream::State {
  void push(Event&& event);

  std::mutex mutex;
  std::condition_variable wake;
  std::deque<Event> events;
  std::optional<Event> end;  // kEnd: there is room for it even when memory has run out
  bool ended = false;        // kEnd was given out
  RequestId id = 0;
  std::weak_ptr<OpenRequests> open;  // the engine may go first
};

}  // namespace idefics
