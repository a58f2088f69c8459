// What the server wants of an engine; tests have a small one of their own.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "idefics/engine.h"

namespace idefics::openai {

// Threads: all functions may be called from several threads at once.
class Backend {
 public:
  virtual ~Backend() = default;

  // As those of Engine.
  virtual RequestId submit(idefics::Request request, EventSink sink) = 0;
  virtual bool is_full() const = 0;
  virtual bool cancel(RequestId id) = 0;
  virtual EngineStats stats() const = 0;

  virtual SamplingParams default_sampling() const = 0;
  virtual int max_model_len() const = 0;
  virtual int vocab_size() const = 0;

  // As those of Processor.
  virtual Prompt prompt(std::span<const Message> messages, const PromptOptions& options) const = 0;
  virtual std::vector<int32_t> tokenize(std::string_view text, bool add_special_tokens) const = 0;
  virtual std::string detokenize(std::span<const int32_t> ids) const = 0;
  // The bytes that a token writes, not always whole characters.
  virtual std::string token_bytes(int32_t id) const = 0;
};

}  // namespace idefics::openai
