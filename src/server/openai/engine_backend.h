// The real engine behind the server's face.
#pragma once

#include "server/openai/backend.h"

namespace idefics::openai {

class EngineBackend : public Backend {
 public:
  explicit EngineBackend(Engine engine) : engine_(std::move(engine)) {}

  RequestId submit(idefics::Request request, EventSink sink) override;
  bool is_full() const override;
  bool cancel(RequestId id) override;
  EngineStats stats() const override;
  SamplingParams default_sampling() const override;
  int max_model_len() const override;
  int vocab_size() const override;
  Prompt prompt(std::span<const Message> messages, const PromptOptions& options) const override;
  std::vector<int32_t> tokenize(std::string_view text, bool add_special_tokens) const override;
  std::string detokenize(std::span<const int32_t> ids) const override;
  std::string token_bytes(int32_t id) const override;

 private:
  Engine engine_;
};

}  // namespace idefics::openai
