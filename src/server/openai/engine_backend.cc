#include "server/openai/engine_backend.h"

#include "processor/parts.h"

namespace idefics::openai {

RequestId EngineBackend::submit(idefics::Request request, EventSink sink) {
  return engine_.submit(std::move(request), std::move(sink));
}
bool EngineBackend::is_full() const { return engine_.is_full(); }
bool EngineBackend::cancel(RequestId id) { return engine_.cancel(id); }
EngineStats EngineBackend::stats() const { return engine_.stats(); }
SamplingParams EngineBackend::default_sampling() const { return engine_.default_sampling(); }
int EngineBackend::max_model_len() const { return engine_.max_model_len(); }
int EngineBackend::vocab_size() const { return engine_.processor().vocab_size(); }

Prompt EngineBackend::prompt(std::span<const Message> messages, const PromptOptions& options) const {
  return engine_.processor().prompt(messages, options);
}

// Control tokens that a user writes are plain text, here as in messages.
std::vector<int32_t> EngineBackend::tokenize(std::string_view text, bool add_special_tokens) const {
  return engine_.processor().tokenize(text, add_special_tokens, true);
}
std::string EngineBackend::detokenize(std::span<const int32_t> ids) const {
  return engine_.processor().detokenize(ids, false);
}
std::string EngineBackend::token_bytes(int32_t id) const {
  return engine_.processor().parts().tokenizer.token_bytes(id);
}

}  // namespace idefics::openai
