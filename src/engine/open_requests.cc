#include "engine/open_requests.h"

#include "base/check.h"

namespace idefics {

std::shared_ptr<Job> OpenRequests::open(Request request, EventSink sink) {
  const std::lock_guard lock(mutex_);
  auto job = std::make_shared<Job>(next_id_, std::move(request), std::move(sink));
  open_.emplace(next_id_, job);
  ++next_id_;
  ++counters_.opened;
  return job;
}

void OpenRequests::end(Job& job, std::optional<Error> error) {
  std::shared_ptr<Job> keep;
  {
    const std::lock_guard lock(mutex_);
    const auto it = open_.find(job.id);
    IDEFICS_CHECK(it != open_.end());
    keep = std::move(it->second);
    open_.erase(it);
    if (error) {
      ++(error->code() == ErrorCode::kCancelled ? counters_.cancelled
         : job.usage.prompt_tokens == 0         ? counters_.refused
                                                : counters_.failed);
    }
  }
  job.sink({.type = Event::Type::kEnd,
            .prompt_logprobs = std::move(job.prompt_logprobs),
            .seed = job.seed,
            .usage = job.usage,
            .timings = job.timings,
            .error = std::move(error)});
}

bool OpenRequests::cancel(RequestId id) {
  const std::lock_guard lock(mutex_);
  const auto it = open_.find(id);
  if (it == open_.end()) return false;
  it->second->cancelled = true;
  return true;
}

int OpenRequests::count() const {
  const std::lock_guard lock(mutex_);
  return static_cast<int>(open_.size());
}

OpenRequests::Counters OpenRequests::counters() const {
  const std::lock_guard lock(mutex_);
  return counters_;
}

}  // namespace idefics
