#include "engine/prompt_lookup.h"

#include <algorithm>

namespace idefics {

std::span<const int32_t> PromptLookup::propose(std::span<const int32_t> tokens) {
  if (pause_ > 0 && pause_-- > 0) return {};
  if (tokens.size() <= kNgram) return {};
  const auto ngram = tokens.last(kNgram);
  // The latest occurrence: in a table the row before is the best guide.
  for (size_t end = tokens.size() - 1; end >= kNgram; --end) {
    if (tokens[end - 1] != ngram[kNgram - 1] ||
        !std::equal(ngram.begin(), ngram.end(), tokens.begin() + static_cast<std::ptrdiff_t>(end - kNgram)))
      continue;
    return tokens.subspan(end, std::min<size_t>(static_cast<size_t>(allowance_), tokens.size() - end));
  }
  return {};
}

void PromptLookup::note(int proposed, int accepted) {
  if (proposed == 0) return;
  if (accepted == 0) {
    allowance_ = std::max(1, allowance_ / 2);
    if (++wrong_ < kPatience) return;
    pause_ = kPause;
  } else if (accepted == proposed) {
    allowance_ = std::min(kMost, 2 * allowance_ + 1);
  }
  wrong_ = 0;
}

}  // namespace idefics
