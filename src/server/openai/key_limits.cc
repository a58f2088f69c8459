#include "server/openai/key_limits.h"

namespace idefics::openai {

std::shared_ptr<void> KeyLimits::take(size_t key) const {
  std::atomic<int>& count = counts_->at(key);
  const int taken_now = ++count;
  // The place keeps the counts alive: it may be given back when this object is gone.
  std::shared_ptr<void> place(&count, [counts = counts_](void* taken) { --*static_cast<std::atomic<int>*>(taken); });
  return taken_now <= most_ || most_ == 0 ? place : nullptr;
}

}  // namespace idefics::openai
