// Guesses the next tokens from the text so far: what followed the last few tokens when they occurred before.
#pragma once

#include <cstdint>
#include <span>

namespace idefics {

// Documents repeat themselves: table rows, tags, names. A guess costs a row of a step, which is little beside the
// weights that a step reads; still it guesses less while its guesses are wrong.
//
// Allowance: how many tokens may be guessed at once. A guess that was right throughout doubles it, one that was wrong
// from the first token halves it, and when that happened kPatience times in a row there is a pause of kPause tokens.
class PromptLookup {
 public:
  static constexpr int kMost = 7;

  // What may follow `tokens`, a part of them; empty without a match. The span is valid as long as `tokens`.
  std::span<const int32_t> propose(std::span<const int32_t> tokens);
  // How a guess fared.
  void note(int proposed, int accepted);

 private:
  static constexpr int kNgram = 3, kPatience = 3, kPause = 24;
  int allowance_ = 3, wrong_ = 0, pause_ = 0;
};

}  // namespace idefics
