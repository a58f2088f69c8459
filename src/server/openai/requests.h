// The bodies of requests, read into what the engine takes.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "idefics/engine.h"
#include "server/openai/media.h"

namespace idefics::openai {

// What bounds and completes a request, from the model and the configuration.
struct ParseContext {
  std::vector<std::string> model_names;  // the first is the model's name
  SamplingParams sampling;               // for what a request does not say
  int vocab_size = 0;
  MediaPolicy media;
};

// What an answer must look like, and who said so. The engine checks it.
struct OutputConstraint {
  enum class Type { kJsonObject, kJsonSchema, kRegex, kChoice, kGrammar };
  Type type;
  std::string param;  // the field that asked for it
  json::value value;  // the schema, the expression, the list of choices
};

// A picture of the messages that has to be fetched before anything is asked of the engine.
struct PictureToFetch {
  size_t message, part;
  std::string param;
  fetch::Url url;
};

// A request for an answer, chat or not.
struct GenerationRequest {
  bool chat = true;
  idefics::Request engine;
  std::string model;
  bool stream = false, include_usage = false;
  // Stream chunks without choices that tell how many tiles are encoded: {"progress": {"tiles_done", "tiles"}}.
  bool include_progress = false;
  std::optional<std::string> request_id;
  std::optional<OutputConstraint> constraint;
  std::vector<std::string> picture_params;  // the field of each picture, in order
  std::vector<PictureToFetch> to_fetch;
  std::shared_ptr<void> place;  // among the requests of its key; let go of before the client hears of the end
};

// POST /v1/chat/completions and POST /v1/completions. Fields that nobody knows are ignored; a field that is known and
// has a wrong value is an ApiError that names it, and so is one whose wish could not be met.
GenerationRequest parse_chat_request(const json::value& body, const ParseContext& context);
GenerationRequest parse_completion_request(const json::value& body, const ParseContext& context);

// POST /tokenize: a text, or messages. POST /detokenize: ids.
struct TokenizeRequest {
  std::optional<std::string> text;
  std::vector<Message> messages;
  std::vector<std::string> picture_params;  // as above
  std::vector<PictureToFetch> to_fetch;
  PromptOptions prompt;
  bool add_special_tokens = true;
  bool token_strings = false;
};
TokenizeRequest parse_tokenize_request(const json::value& body, const ParseContext& context);
std::vector<int32_t> parse_detokenize_request(const json::value& body, const ParseContext& context);

}  // namespace idefics::openai
