#include "engine/sampler.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/check.h"
#include "idefics/error.h"

namespace idefics {

namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();

void check_range(const char* name, double value, double min, double max, const char* wanted) {
  if (value >= min && value <= max) return;  // NaN fails both
  throw Error(ErrorCode::kInvalidValue, fmt::format("{} is {}, wanted {}", name, value, wanted));
}

// splitmix64, a mixing function of good quality: the same (seed, number) gives the same bits everywhere.
double uniform(uint64_t seed, uint64_t number) {
  uint64_t z = seed + (number + 1) * 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return static_cast<double>((z ^ (z >> 31)) >> 11) * 0x1p-53;
}

struct Peak {
  float most;  // of all logits but NaN; kNever when there is none above
  bool has_nan;
};

// In lanes that do not depend on each other, which the compiler turns into vector code.
Peak find_peak(std::span<const float> logits) {
  constexpr size_t kLanes = 16;
  float most[kLanes];
  uint32_t nan[kLanes] = {};
  std::fill_n(most, kLanes, kNever);
  const size_t whole = logits.size() / kLanes * kLanes;
  for (size_t i = 0; i < whole; i += kLanes) {
    for (size_t j = 0; j < kLanes; ++j) {
      const float x = logits[i + j];
      most[j] = x > most[j] ? x : most[j];
      nan[j] |= static_cast<uint32_t>(x != x);
    }
  }
  for (size_t i = whole; i < logits.size(); ++i) {
    most[0] = std::max(most[0], logits[i]);
    nan[0] |= static_cast<uint32_t>(std::isnan(logits[i]));
  }
  return {*std::max_element(most, most + kLanes), std::any_of(nan, nan + kLanes, [](uint32_t n) { return n != 0; })};
}

// The first of the largest.
int32_t best(std::span<const float> logits) {
  const float most = find_peak(logits).most;
  if (!(most > kNever)) return -1;
  return static_cast<int32_t>(std::find(logits.begin(), logits.end(), most) - logits.begin());
}

[[noreturn]] void nothing_left() {
  throw Error(ErrorCode::kInvalidValue,
              "sampling: the parameters exclude every token; relax logit_bias, min_tokens or no_repeat_ngram_size");
}

}  // namespace

void check_sampling(const SamplingParams& p, int vocab_size) {
  constexpr double kMost = 1e6;
  check_range("temperature", p.temperature, 0, kMost, "0 (greedy) or a number above 0");
  check_range("top_k", p.top_k, 0, std::numeric_limits<int>::max(), "0 (off) or more");
  check_range("top_p", p.top_p, 0, kMost, "0 or more (1 and above: off)");
  check_range("min_p", p.min_p, 0, 1, "a number from 0 to 1");
  check_range("repetition_penalty", p.repetition_penalty, std::numeric_limits<double>::min(), kMost,
              "a number above 0");
  check_range("presence_penalty", p.presence_penalty, -kMost, kMost, "a finite number");
  check_range("frequency_penalty", p.frequency_penalty, -kMost, kMost, "a finite number");
  check_range("no_repeat_ngram_size", p.no_repeat_ngram_size, 0, 1e9, "0 (off) or more");
  check_range("max_tokens", p.max_tokens, 0, 1e9, "0 (all the context holds) or more");
  check_range("min_tokens", p.min_tokens, 0, 1e9, "0 or more");
  for (const auto& [id, bias] : p.logit_bias) {
    if (id < 0 || id >= vocab_size) {
      throw Error(ErrorCode::kInvalidValue,
                  fmt::format("logit_bias: token id {} is outside the vocabulary of {}", id, vocab_size));
    }
    check_range("logit_bias", bias, -kMost, kMost, "a finite number");
  }
  for (const int32_t id : p.stop_token_ids) {
    if (id < 0) throw Error(ErrorCode::kInvalidValue, fmt::format("stop_token_ids: {} is not a token id", id));
  }
  for (const std::string& stop : p.stop) {
    if (stop.empty()) throw Error(ErrorCode::kInvalidValue, "stop: an empty string would stop at once");
  }
}

SamplerScratch::SamplerScratch(int vocab_size)
    : count(static_cast<size_t>(vocab_size)),
      order(static_cast<size_t>(vocab_size)),
      sorted(static_cast<size_t>(vocab_size)) {}

Sampler::Sampler(const SamplingParams& params, std::vector<int32_t> eos, uint64_t seed, SamplerScratch& scratch)
    : params_(params), eos_(std::move(eos)), seed_(seed), scratch_(&scratch) {
  check_sampling(params, static_cast<int>(scratch.count.size()));
}

void Sampler::penalize(std::span<const int32_t> prompt, std::span<const int32_t> generated, std::span<float> logits) {
  IDEFICS_CHECK(logits.size() == scratch_->count.size());
  const auto in_range = [&](int32_t id) { return id >= 0 && id < std::ssize(logits); };
  for (const auto& [id, bias] : params_.logit_bias) logits[static_cast<size_t>(id)] += static_cast<float>(bias);

  if (params_.repetition_penalty != 1) {
    const auto penalty = static_cast<float>(params_.repetition_penalty);
    for (const auto ids : {prompt, generated}) {
      for (const int32_t id : ids) {
        if (!in_range(id) || scratch_->count[static_cast<size_t>(id)]++ != 0) continue;  // each token once
        float& x = logits[static_cast<size_t>(id)];
        x = x < 0 ? x * penalty : x / penalty;
      }
    }
    for (const auto ids : {prompt, generated}) {
      for (const int32_t id : ids) {
        if (in_range(id)) scratch_->count[static_cast<size_t>(id)] = 0;
      }
    }
  }

  // A token falls when it would complete an n-gram that occurred before.
  const auto n = static_cast<size_t>(params_.no_repeat_ngram_size), length = prompt.size() + generated.size();
  const auto at = [&](size_t i) { return i < prompt.size() ? prompt[i] : generated[i - prompt.size()]; };
  for (size_t start = 0; n > 0 && start + n <= length; ++start) {
    bool same = true;
    for (size_t i = 0; same && i + 1 < n; ++i) same = at(start + i) == at(length - n + 1 + i);
    if (same && in_range(at(start + n - 1))) logits[static_cast<size_t>(at(start + n - 1))] = kNever;
  }

  if (std::ssize(generated) < params_.min_tokens) {
    for (const int32_t id : eos_) {
      if (in_range(id)) logits[static_cast<size_t>(id)] = kNever;
    }
  }

  if (params_.presence_penalty != 0 || params_.frequency_penalty != 0) {
    for (const int32_t id : generated) scratch_->count[static_cast<size_t>(id)] += in_range(id);
    for (const int32_t id : generated) {
      int32_t& count = scratch_->count[static_cast<size_t>(id)];
      if (count == 0) continue;  // seen above
      logits[static_cast<size_t>(id)] -= static_cast<float>(params_.frequency_penalty) * static_cast<float>(count) +
                                         static_cast<float>(params_.presence_penalty);
      count = 0;
    }
  }
}

void Sampler::warp(std::span<float> logits) {
  if (params_.temperature == 0)
    throw Error(ErrorCode::kInvalidValue, "temperature is 0: the choice is greedy, there is nothing to draw from");
  if (params_.temperature != 1) {
    const auto temperature = static_cast<float>(params_.temperature);
    for (float& x : logits) x /= temperature;
  }
  if (params_.top_k > 0) keep_top_k(logits);
  if (params_.top_p < 1) keep_top_p(logits);
  if (params_.min_p > 0) keep_min_p(logits);
}

void Sampler::keep_top_k(std::span<float> logits) {
  if (params_.top_k >= std::ssize(logits)) return;
  std::copy(logits.begin(), logits.end(), scratch_->sorted.begin());
  const auto kth = scratch_->sorted.begin() + params_.top_k - 1;
  std::nth_element(scratch_->sorted.begin(), kth, scratch_->sorted.end(), std::greater<>());
  for (float& x : logits) {
    if (x < *kth) x = kNever;
  }
}

void Sampler::keep_top_p(std::span<float> logits) {
  std::iota(scratch_->order.begin(), scratch_->order.end(), 0);
  // Ascending; among equal logits the smaller id falls first, which is what a stable ascending sort of the reference
  // does.
  std::stable_sort(scratch_->order.begin(), scratch_->order.end(), [&](int32_t a, int32_t b) {
    return logits[static_cast<size_t>(a)] < logits[static_cast<size_t>(b)];
  });
  const float most = logits[static_cast<size_t>(scratch_->order.back())];
  double total = 0;
  for (const float x : logits) total += std::exp(static_cast<double>(x) - most);
  double sum = 0;
  for (size_t i = 0; i + 1 < scratch_->order.size(); ++i) {
    float& x = logits[static_cast<size_t>(scratch_->order[i])];
    sum += std::exp(static_cast<double>(x) - most) / total;
    if (sum > 1 - params_.top_p) break;
    x = kNever;
  }
}

void Sampler::keep_min_p(std::span<float> logits) {
  // p_i < min_p * p_max  is  exp(x_i - x_max) < min_p
  const float most = *std::max_element(logits.begin(), logits.end());
  for (float& x : logits) {
    if (x < most && std::exp(x - most) < static_cast<float>(params_.min_p)) x = kNever;
  }
}

int32_t Sampler::draw(std::span<const float> logits, uint64_t number) const {
  const float most = *std::max_element(logits.begin(), logits.end());
  if (!(most > kNever)) nothing_left();
  double total = 0;
  for (const float x : logits) total += std::exp(static_cast<double>(x) - most);
  double left = uniform(seed_, number) * total;
  int32_t last = -1;
  for (size_t i = 0; i < logits.size(); ++i) {
    const double weight = std::exp(static_cast<double>(logits[i]) - most);
    if (weight <= 0) continue;
    last = static_cast<int32_t>(i);
    left -= weight;
    if (left < 0) return last;
  }
  return last;  // rounding let the sum end just below
}

int32_t Sampler::choose(std::span<const int32_t> prompt, std::span<const int32_t> generated, std::span<float> logits) {
  const Peak peak = find_peak(logits);
  if (peak.has_nan || peak.most == std::numeric_limits<float>::infinity()) {
    throw Error(
        ErrorCode::kNumeric,
        fmt::format("model: NaN or Inf among the logits of token {}; the weights are damaged or overflow in this dtype",
                    generated.size()));
  }
  penalize(prompt, generated, logits);
  if (params_.temperature == 0) {
    const int32_t id = best(logits);
    if (id < 0) nothing_left();
    return id;
  }
  warp(logits);
  return draw(logits, generated.size());
}

}  // namespace idefics
