#include "engine/logprobs.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace idefics {

TokenInfo token_info(std::span<const float> logits, int32_t id, int num_top) {
  const float most = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float x : logits) sum += std::exp(static_cast<double>(x) - most);
  const double log_sum = most + std::log(sum);
  const auto logprob = [&](int32_t i) { return static_cast<float>(logits[static_cast<size_t>(i)] - log_sum); };

  TokenInfo info{.id = id, .logprob = logprob(id)};
  if (num_top == 0) return info;
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  const auto last = order.begin() + std::min<std::ptrdiff_t>(num_top, std::ssize(order));
  std::partial_sort(order.begin(), last, order.end(), [&](int32_t a, int32_t b) {
    const float x = logits[static_cast<size_t>(a)], y = logits[static_cast<size_t>(b)];
    return x != y ? x > y : a < b;
  });
  for (auto it = order.begin(); it != last; ++it) info.top.push_back({*it, logprob(*it)});
  return info;
}

}  // namespace idefics
