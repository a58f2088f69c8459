// How much one key may have under way.
#pragma once

#include <atomic>
#include <memory>
#include <vector>

namespace idefics::openai {

// Counts the requests of each key, so that one key cannot take all places of the queue.
// Threads: any.
class KeyLimits {
 public:
  // `most` requests of each of `num_keys` keys at a time; 0: any number.
  KeyLimits(int most, size_t num_keys)
      : most_(most), counts_(std::make_shared<std::vector<std::atomic<int>>>(num_keys)) {}

  int most() const { return most_; }
  // A place for a request, free again when the last copy is gone; null when the key has them all.
  std::shared_ptr<void> take(size_t key) const;

 private:
  int most_;
  std::shared_ptr<std::vector<std::atomic<int>>> counts_;
};

}  // namespace idefics::openai
