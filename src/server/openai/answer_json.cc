#include "server/openai/answer_json.h"

#include <algorithm>
#include <cmath>

#include "base/utf8.h"

namespace idefics::openai {

namespace {

// JSON has no infinity; this is what OpenAI writes for a token that cannot come.
double finite(double logprob) { return std::isfinite(logprob) ? logprob : -9999.0; }

double per_second(int tokens, double ms) { return ms > 0 ? tokens * 1000.0 / ms : 0.0; }
double per_token(int tokens, double ms) { return tokens > 0 ? ms / tokens : 0.0; }

json::object token_json(int32_t id, double logprob, const Backend& backend) {
  const std::string bytes = backend.token_bytes(id);
  json::array numbers;
  for (const char byte : bytes) numbers.emplace_back(static_cast<unsigned char>(byte));
  return {{"token", repair_utf8(bytes)}, {"logprob", finite(logprob)}, {"bytes", std::move(numbers)}};
}

json::object chat_logprobs(const std::vector<TokenInfo>& tokens, const Backend& backend) {
  json::array content;
  for (const TokenInfo& token : tokens) {
    json::object entry = token_json(token.id, token.logprob, backend);
    json::array top;
    for (const TokenLogprob& candidate : token.top)
      top.emplace_back(token_json(candidate.id, candidate.logprob, backend));
    entry["top_logprobs"] = std::move(top);
    content.emplace_back(std::move(entry));
  }
  return {{"content", std::move(content)}};
}

// The older form that completions have.
json::object completion_logprobs(const ChoiceText& piece, const Backend& backend) {
  json::array names, logprobs, tops, offsets;
  size_t offset = piece.bytes_before;
  for (const TokenInfo& token : piece.tokens) {
    const std::string bytes = backend.token_bytes(token.id);
    json::object top;
    for (const TokenLogprob& candidate : token.top)
      top[repair_utf8(backend.token_bytes(candidate.id))] = finite(candidate.logprob);
    names.emplace_back(repair_utf8(bytes));
    logprobs.emplace_back(finite(token.logprob));
    tops.emplace_back(std::move(top));
    offsets.emplace_back(offset);
    offset += bytes.size();
  }
  return {{"tokens", std::move(names)},
          {"token_logprobs", std::move(logprobs)},
          {"top_logprobs", std::move(tops)},
          {"text_offset", std::move(offsets)}};
}

json::value logprobs_json(const AnswerHead& head, const ChoiceText& piece, const Backend& backend) {
  if (!head.logprobs) return nullptr;
  if (head.chat) return chat_logprobs(piece.tokens, backend);
  return completion_logprobs(piece, backend);
}

json::object chunk(const AnswerHead& head, json::array choices) {
  return {{"id", head.id},
          {"object", head.chat ? "chat.completion.chunk" : "text_completion"},
          {"created", head.created},
          {"model", head.model},
          {"choices", std::move(choices)}};
}

json::object delta_chunk(const AnswerHead& head, int choice, json::object delta, json::value logprobs,
                         json::value finish_reason) {
  return chunk(head, {json::object{{"index", choice},
                                   {"delta", std::move(delta)},
                                   {"logprobs", std::move(logprobs)},
                                   {"finish_reason", std::move(finish_reason)}}});
}

}  // namespace

json::object usage_json(const Usage& usage) {
  return {{"prompt_tokens", usage.prompt_tokens},
          {"completion_tokens", usage.completion_tokens},
          {"total_tokens", usage.prompt_tokens + usage.completion_tokens},
          {"prompt_tokens_details", {{"cached_tokens", usage.cached_tokens}, {"image_tokens", usage.image_tokens}}}};
}

json::object timings_json(const Usage& usage, const Timings& timings) {
  const int computed = usage.prompt_tokens - usage.cached_tokens;
  return {{"prompt_n", computed},
          {"cache_n", usage.cached_tokens},
          {"prompt_ms", timings.prefill_ms},
          {"prompt_per_token_ms", per_token(computed, timings.prefill_ms)},
          {"prompt_per_second", per_second(computed, timings.prefill_ms)},
          {"predicted_n", usage.completion_tokens},
          {"predicted_ms", timings.decode_ms},
          {"predicted_per_token_ms", per_token(usage.completion_tokens, timings.decode_ms)},
          {"predicted_per_second", timings.decode_tokens_per_s},
          {"preprocess_ms", timings.preprocess_ms},
          {"queue_ms", timings.queue_ms},
          {"vision_ms", timings.vision_ms},
          {"ttft_ms", timings.ttft_ms},
          {"tiles", usage.tiles}};
}

json::object answer_json(const AnswerHead& head, const std::vector<ChoiceText>& choices,
                         const std::vector<FinishReason>& reasons, const Backend& backend) {
  json::array list;
  for (size_t i = 0; i < choices.size(); ++i) {
    json::object choice = {{"index", i}};
    if (head.chat) {
      choice["message"] = {{"role", "assistant"}, {"content", choices[i].text}};
    } else {
      choice["text"] = choices[i].text;
    }
    choice["logprobs"] = logprobs_json(head, choices[i], backend);
    choice["finish_reason"] = finish_reason_name(reasons[i]);
    list.emplace_back(std::move(choice));
  }
  return {{"id", head.id},
          {"object", head.chat ? "chat.completion" : "text_completion"},
          {"created", head.created},
          {"model", head.model},
          {"choices", std::move(list)}};
}

json::object role_chunk(const AnswerHead& head, int choice) {
  return delta_chunk(head, choice, {{"role", "assistant"}, {"content", ""}}, nullptr, nullptr);
}

json::object text_chunk(const AnswerHead& head, int choice, const ChoiceText& piece, const Backend& backend) {
  json::value logprobs = logprobs_json(head, piece, backend);
  if (head.chat) return delta_chunk(head, choice, {{"content", piece.text}}, std::move(logprobs), nullptr);
  return chunk(
      head,
      {json::object{
          {"index", choice}, {"text", piece.text}, {"logprobs", std::move(logprobs)}, {"finish_reason", nullptr}}});
}

json::object finish_chunk(const AnswerHead& head, int choice, FinishReason reason) {
  const json::string name(finish_reason_name(reason));
  if (head.chat) return delta_chunk(head, choice, {}, nullptr, name);
  return chunk(head, {json::object{{"index", choice}, {"text", ""}, {"logprobs", nullptr}, {"finish_reason", name}}});
}

json::object usage_chunk(const AnswerHead& head, const Usage& usage, const Timings& timings) {
  json::object out = chunk(head, {});
  out["usage"] = usage_json(usage);
  out["timings"] = timings_json(usage, timings);
  return out;
}

json::object progress_chunk(const AnswerHead& head, int tiles_done, int tiles) {
  json::object out = chunk(head, {});
  out["progress"] = {{"tiles_done", tiles_done}, {"tiles", tiles}};
  return out;
}

json::array prompt_logprobs_json(const std::vector<TokenInfo>& tokens, const Backend& backend) {
  json::array out;
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (i == 0) {
      out.emplace_back(nullptr);  // nothing comes before the first one
      continue;
    }
    json::object entry;
    const auto add = [&](int32_t id, double logprob, json::value rank) {
      entry[std::to_string(id)] = {{"logprob", finite(logprob)},
                                   {"rank", std::move(rank)},
                                   {"decoded_token", repair_utf8(backend.token_bytes(id))}};
    };
    add(tokens[i].id, tokens[i].logprob, nullptr);
    for (size_t k = 0; k < tokens[i].top.size(); ++k) add(tokens[i].top[k].id, tokens[i].top[k].logprob, k + 1);
    out.emplace_back(std::move(entry));
  }
  return out;
}

}  // namespace idefics::openai
