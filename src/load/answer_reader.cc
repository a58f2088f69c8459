#include "load/answer_reader.h"

#include <fmt/format.h>

#include "base/json.h"

namespace idefics::load {

namespace {

// The member of an object, if it is one that has it.
const json::value* member(const json::value* value, std::string_view key) {
  if (value == nullptr || !value->is_object()) return nullptr;
  return value->get_object().if_contains(key);
}

const json::string* text_member(const json::value* value, std::string_view key) {
  const json::value* found = member(value, key);
  return found == nullptr ? nullptr : found->if_string();
}

}  // namespace

AnswerReader::AnswerReader() : parser_([this](std::string_view data) { read_event(data); }) {}

bool AnswerReader::push(std::string_view bytes, Clock::time_point now) {
  now_ = now;
  bytes_ += bytes.size();
  if (problem_.empty() && bytes_ > kMaxBytes) problem_ = "the answer does not end";
  if (problem_.empty() && !parser_.push(bytes)) problem_ = "an event of the answer is too large";
  return problem_.empty();
}

void AnswerReader::read_event(std::string_view data) {
  if (done_ || !problem_.empty()) return;
  if (data == "[DONE]") {
    done_ = true;
    return;
  }
  try {
    read_chunk(data);
  } catch (const Error& e) {
    problem_ = e.what();
  }
}

void AnswerReader::read_chunk(std::string_view data) {
  const json::value chunk = parse_json(data, "an event of the answer", ErrorCode::kIo);
  if (const json::value* error = member(&chunk, "error"); error != nullptr && !error->is_null()) {
    const json::string* message = text_member(error, "message");
    problem_ =
        fmt::format("the server ends its answer with an error: {}",
                    message == nullptr ? std::string("no message") : std::string(message->c_str()).substr(0, 200));
    return;
  }
  const json::value* tokens = member(member(&chunk, "usage"), "completion_tokens");
  if (tokens != nullptr && tokens->is_int64() && tokens->get_int64() >= 0) counted_ = tokens->get_int64();
  const json::value* choices = member(&chunk, "choices");
  if (choices == nullptr || !choices->is_array()) return;
  for (const json::value& choice : choices->get_array()) {
    const json::value* reason = member(&choice, "finish_reason");
    if (reason != nullptr && reason->is_string()) finished_ = true;
    const json::string* text = text_member(member(&choice, "delta"), "content");
    if (text == nullptr || text->empty()) text = text_member(member(&choice, "delta"), "reasoning_content");
    if (text == nullptr || text->empty()) continue;
    pieces_.push_back(now_);
    if (text_.size() + text->size() <= kMaxTextBytes) text_.append(text->data(), text->size());
  }
}

int64_t AnswerReader::tokens() const { return counted_.value_or(static_cast<int64_t>(pieces_.size())); }

std::string AnswerReader::problem() const {
  if (!problem_.empty()) return problem_;
  if (!done_ && !finished_) return "the answer is not complete";
  return "";
}

}  // namespace idefics::load
