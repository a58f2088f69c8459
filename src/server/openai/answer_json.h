// Answers as OpenAI writes them: whole, and in chunks of a stream.
#pragma once

#include <string>
#include <vector>

#include "base/json.h"
#include "server/openai/backend.h"

namespace idefics::openai {

// What is the same in everything that is said about one request.
struct AnswerHead {
  std::string id;  // "chatcmpl-..." or "cmpl-..."
  int64_t created = 0;
  std::string model;
  bool chat = true;
  bool logprobs = false;
};

// A choice as far as it is known.
struct ChoiceText {
  std::string text;
  std::vector<TokenInfo> tokens;  // with their log probabilities
  size_t bytes_before = 0;        // of the choice's text, before this piece
};

json::object usage_json(const Usage& usage);
// As llama-server has them, and what is particular to pictures.
json::object timings_json(const Usage& usage, const Timings& timings);

// The whole answer.
json::object answer_json(const AnswerHead& head, const std::vector<ChoiceText>& choices,
                         const std::vector<FinishReason>& reasons, const Backend& backend);

// Chunks of a stream, without the "data: " around them.
json::object role_chunk(const AnswerHead& head, int choice);
json::object text_chunk(const AnswerHead& head, int choice, const ChoiceText& piece, const Backend& backend);
json::object finish_chunk(const AnswerHead& head, int choice, FinishReason reason);
json::object usage_chunk(const AnswerHead& head, const Usage& usage, const Timings& timings);
json::object progress_chunk(const AnswerHead& head, int tiles_done, int tiles);

// "prompt_logprobs" as vLLM has it: for each token of the prompt null or {"id": {"logprob", "rank", "decoded_token"}}.
json::array prompt_logprobs_json(const std::vector<TokenInfo>& tokens, const Backend& backend);

}  // namespace idefics::openai
