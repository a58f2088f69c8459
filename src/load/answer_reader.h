// The answer to one streamed chat completion.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "load/event_parser.h"

namespace idefics::load {

using Clock = std::chrono::steady_clock;

// A server is not trusted: whatever it sends ends in a problem at worst.
class AnswerReader {
 public:
  AnswerReader();
  AnswerReader(const AnswerReader&) = delete;
  AnswerReader& operator=(const AnswerReader&) = delete;

  // Bytes of a body with status 200, and when they came. False: no more are wanted.
  bool push(std::string_view bytes, Clock::time_point now);

  // When each piece of text came. A piece is a token for most servers.
  const std::vector<Clock::time_point>& pieces() const { return pieces_; }
  // As the server counted them; else one for each piece.
  int64_t tokens() const;
  const std::string& text() const { return text_; }  // the first choice, at most kMaxTextBytes of it
  // Why this is no whole answer, in a line; empty when it is one.
  std::string problem() const;

  static constexpr size_t kMaxTextBytes = size_t{1} << 20;
  static constexpr size_t kMaxBytes = size_t{256} << 20;  // of an answer

 private:
  void read_event(std::string_view data);
  void read_chunk(std::string_view data);

  EventParser parser_;
  Clock::time_point now_;
  std::vector<Clock::time_point> pieces_;
  std::optional<int64_t> counted_;
  std::string text_, problem_;
  size_t bytes_ = 0;
  bool done_ = false, finished_ = false;
};

}  // namespace idefics::load
