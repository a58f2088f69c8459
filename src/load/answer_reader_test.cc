#include "load/answer_reader.h"

#include <gtest/gtest.h>

namespace idefics::load {
namespace {

std::string event(const std::string& data) { return "data: " + data + "\n\n"; }
std::string piece(const std::string& text) {
  return event(R"({"choices":[{"index":0,"delta":{"content":")" + text + R"("},"finish_reason":null}]})");
}
const std::string kRole = event(R"({"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]})");
const std::string kFinish = event(R"({"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]})");
const std::string kUsage = event(R"({"choices":[],"usage":{"prompt_tokens":4,"completion_tokens":9}})");
const std::string kDone = event("[DONE]");

TEST(AnswerReader, notes_when_pieces_of_text_came) {
  AnswerReader reader;
  const Clock::time_point start;
  EXPECT_TRUE(reader.push(kRole, start));
  EXPECT_EQ(reader.problem(), "the answer is not complete");
  EXPECT_TRUE(reader.push(piece("a"), start + std::chrono::milliseconds(5)));
  EXPECT_TRUE(reader.push(piece("b") + kFinish + kDone, start + std::chrono::milliseconds(8)));
  EXPECT_EQ(reader.problem(), "");
  EXPECT_EQ(reader.text(), "ab");
  EXPECT_EQ(reader.tokens(), 2);
  ASSERT_EQ(reader.pieces().size(), 2u);
  EXPECT_EQ(reader.pieces()[0] - start, std::chrono::milliseconds(5));
  EXPECT_EQ(reader.pieces()[1] - start, std::chrono::milliseconds(8));
}

TEST(AnswerReader, believes_the_servers_count_of_tokens) {
  AnswerReader reader;
  reader.push(kRole + piece("a") + kFinish + kUsage + kDone, {});
  EXPECT_EQ(reader.tokens(), 9);
  EXPECT_EQ(reader.pieces().size(), 1u);
}

TEST(AnswerReader, rubbish_is_a_problem_and_nothing_worse) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"", "the answer is not complete"},
      {"<html>no</html>", "the answer is not complete"},
      {event("{"), "an event of the answer"},
      {event("[DONE"), "an event of the answer"},
      {event(std::string(100'000, '[')), "an event of the answer"},
      {event("null") + event("7") + event("[]") + event("\"x\""), "the answer is not complete"},
      {event(R"({"choices":7})"), "the answer is not complete"},
      {event(R"({"choices":[7,null,[],{"delta":7},{"delta":{"content":7}}]})"), "the answer is not complete"},
      {event(R"({"usage":{"completion_tokens":-5}})"), "the answer is not complete"},
      {event(R"({"usage":7})") + event(R"({"usage":{"completion_tokens":"x"}})"), "the answer is not complete"},
      {piece("a") + event(R"({"error":{"message":"no memory"}})"), "no memory"},
      {piece("a") + event(R"({"error":7})") + kDone, "no message"},
      {"data: " + std::string(5 << 20, 'x'), "too large"},
  };
  for (const auto& [bytes, problem] : cases) {
    AnswerReader reader;
    reader.push(bytes, {});
    EXPECT_NE(reader.problem().find(problem), std::string::npos)
        << bytes.substr(0, 200) << ": " << reader.problem().substr(0, 200);
    EXPECT_GE(reader.tokens(), 0);
  }
}

TEST(AnswerReader, nothing_counts_behind_the_end) {
  AnswerReader reader;
  reader.push(piece("a") + kDone + piece("b") + event("{"), {});
  EXPECT_EQ(reader.problem(), "");
  EXPECT_EQ(reader.text(), "a");
}

TEST(AnswerReader, an_answer_that_does_not_end_is_given_up) {
  AnswerReader reader;
  const std::string block = ": " + std::string(1 << 20, 'x') + "\n";
  int blocks = 0;
  while (blocks < 1000 && reader.push(block, {})) ++blocks;
  EXPECT_LE(blocks, 256);
  EXPECT_EQ(reader.problem(), "the answer does not end");
}

}  // namespace
}  // namespace idefics::load
