#include "cli/chat_session.h"

#include <gtest/gtest.h>

#include "base/files.h"
#include "base/json.h"

namespace idefics::cli {
namespace {

const std::filesystem::path kModel = std::filesystem::path(IDEFICS_SOURCE_DIR) / "models/tiny-cards";

// Lines as if typed; "^C" is Ctrl-C.
class Script : public LineReader {
 public:
  explicit Script(std::vector<std::string> lines) : lines_(std::move(lines)) {}
  Line read(const std::string& prompt) override {
    prompts += prompt;
    if (next_ == lines_.size()) return {};
    const std::string& line = lines_[next_++];
    if (line == "^C") return {Line::Kind::kInterrupted, ""};
    return {Line::Kind::kText, line};
  }
  std::string prompts;

 private:
  std::vector<std::string> lines_;
  size_t next_ = 0;
};

// What is printed, and the messages that a script leaves behind.
struct Result {
  std::string out, err, prompts;
  json::array messages;
  int exit_code = 0;
};

Result play(std::vector<std::string> lines) {
  static Engine engine = Engine::load(kModel);
  const std::string file = testing::TempDir() + "idefics-chat-session.json";
  lines.push_back("/save " + file);
  Script script(std::move(lines));
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();
  Result result;
  ChatOptions options;
  options.sampling.max_tokens = 12;
  result.exit_code = ChatSession(engine, script, options).run();
  result.out = testing::internal::GetCapturedStdout();
  result.err = testing::internal::GetCapturedStderr();
  result.prompts = script.prompts;
  result.messages = parse_json(read_file(file, 1 << 20), file).as_array();
  std::filesystem::remove(file);
  return result;
}

std::string text_of(const json::value& message) {
  return std::string(message.at("content").as_array().back().at("text").as_string());
}

TEST(StripBlank, takes_one_blank_only) {
  EXPECT_EQ(strip_blank(" a"), "a");
  EXPECT_EQ(strip_blank("  a"), " a");
  EXPECT_EQ(strip_blank("\na"), "\na");
  EXPECT_EQ(strip_blank(""), "");
}

TEST(ChatSession, answers_are_shown_and_remembered_without_their_leading_blank) {
  const Result r = play({"/image " + (kModel / "samples/01.png").string(), "What colour is the circle?"});
  EXPECT_EQ(r.out, "The circle is gray.\n");
  ASSERT_EQ(r.messages.size(), 2u);
  EXPECT_EQ(text_of(r.messages[1]), "The circle is gray.");
}

TEST(ChatSession, blank_lines_and_dropped_lines_ask_nothing) {
  const Result r = play({"", "   ", "^C"});
  EXPECT_TRUE(r.messages.empty());
  EXPECT_EQ(r.out, "");
  EXPECT_EQ(r.exit_code, 0);
}

TEST(ChatSession, three_quotes_hold_several_lines) {
  const Result r = play({"\"\"\"one line\"\"\"", "\"\"\"", "/two", "lines\"\"\""});
  ASSERT_EQ(r.messages.size(), 4u);
  EXPECT_EQ(text_of(r.messages[0]), "one line");
  EXPECT_EQ(text_of(r.messages[2]), "/two\nlines") << "no command, although a line begins like one";
  EXPECT_EQ(r.prompts, "> > . . > > ");
}

TEST(ChatSession, ctrl_c_forgets_a_text_of_several_lines) {
  const Result r = play({"\"\"\"begun", "^C"});
  EXPECT_TRUE(r.messages.empty());
}

TEST(ChatSession, clear_forgets_turns_and_waiting_pictures) {
  const Result r = play({"/image " + (kModel / "samples/01.png").string(), "/clear", "Hello", "/clear"});
  EXPECT_TRUE(r.messages.empty());
}

TEST(ChatSession, a_failed_question_leaves_no_trace_and_names_its_exit_code) {
  std::string long_text;
  for (int i = 0; i < 3000; ++i) long_text += "word ";
  const Result r = play({long_text, "Hello"});
  EXPECT_EQ(r.exit_code, 2);
  ASSERT_EQ(r.messages.size(), 2u);
  EXPECT_EQ(text_of(r.messages[0]), "Hello");
  EXPECT_NE(r.err.find("2048"), std::string::npos) << r.err;
}

}  // namespace
}  // namespace idefics::cli
