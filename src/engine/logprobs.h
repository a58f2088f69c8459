// Log probabilities of tokens.
#pragma once

#include <span>

#include "idefics/engine.h"

namespace idefics {

// Of token `id` and of the `num_top` likeliest ones (the smaller id first where they are equal), under
// softmax(logits). Sums in double.   logits [V]
TokenInfo token_info(std::span<const float> logits, int32_t id, int num_top);

}  // namespace idefics
