// The fields of a request that say how tokens are chosen and reported; the same for chats and completions.
#pragma once

#include "server/openai/fields.h"
#include "server/openai/requests.h"

namespace idefics::openai {

// Sets sampling, n, stops, special tokens, cache_salt, prompt_logprobs; stream and its options; request_id and the
// constraint. Leaves logprobs and max_tokens' default to the caller.
void read_common_fields(const Fields& body, const ParseContext& context, GenerationRequest& request);
// ApiError 404 model_not_found for another model than ours. Returns the name that the answer has.
std::string read_model(const Fields& body, const ParseContext& context);

}  // namespace idefics::openai
