// A conversation with a model, line by line.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cli/line_reader.h"
#include "cli/messages_file.h"
#include "idefics/engine.h"

namespace idefics::cli {

// What every turn is asked with.
struct ChatOptions {
  std::optional<std::string> system;
  SamplingParams sampling;
  ImageOptions images;
  std::optional<bool> skip_special_tokens;
};

class ChatSession {
 public:
  // Both must outlive the session.
  ChatSession(Engine& engine, LineReader& reader, ChatOptions options);

  // Until the end of the input or /exit. A failed turn or command is reported and taken back. Returns the exit code of
  // the first failure, or 0.
  int run();

 private:
  struct Command {
    std::string_view name, argument, help;
    void (ChatSession::*run)(const std::string& argument);
  };
  static const std::vector<Command>& commands();

  std::optional<std::string> read_message();
  void handle(const std::string& line);
  void run_command(const std::string& line);
  void say(const std::string& text);
  void add_question(const std::string& text);

  void add_image(const std::string& path);
  void clear(const std::string&);
  void stats(const std::string&);
  void save(const std::string& path);
  void help(const std::string&);
  void exit(const std::string&) { done_ = true; }

  Engine& engine_;
  LineReader& reader_;
  ChatOptions options_;
  Conversation conversation_;
  std::vector<std::pair<std::string, std::string>> waiting_;  // pictures of the next question: path, bytes
  std::optional<Answer> last_;
  int failure_ = 0;
  bool done_ = false;
};

// The text without one leading blank: models write one behind "Assistant:".
std::string_view strip_blank(std::string_view text);

}  // namespace idefics::cli
