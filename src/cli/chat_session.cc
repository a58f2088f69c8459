#include "cli/chat_session.h"

#include <fmt/format.h>
#include <unistd.h>

#include "base/files.h"
#include "cli/ask.h"
#include "cli/pictures.h"
#include "cli/suggestions.h"
#include "cli/terminal.h"

namespace idefics::cli {

namespace {

constexpr std::string_view kQuotes = "\"\"\"";

std::string trim(std::string_view text) {
  const size_t first = text.find_first_not_of(" \t"), last = text.find_last_not_of(" \t\r");
  return first == std::string_view::npos ? "" : std::string(text.substr(first, last - first + 1));
}

// What stands between quotes, as terminals put them around files that are dropped on them.
std::string unquote(const std::string& text) {
  const bool quoted = text.size() >= 2 && text.front() == text.back() && (text.front() == '"' || text.front() == '\'');
  return quoted ? text.substr(1, text.size() - 2) : text;
}

}  // namespace

std::string_view strip_blank(std::string_view text) { return text.starts_with(' ') ? text.substr(1) : text; }

ChatSession::ChatSession(Engine& engine, LineReader& reader, ChatOptions options)
    : engine_(engine), reader_(reader), options_(std::move(options)) {
  clear("");
}

const std::vector<ChatSession::Command>& ChatSession::commands() {
  static const std::vector<Command> list = {
      {"/image", "PATH", "add a picture to the next question", &ChatSession::add_image},
      {"/clear", "", "forget the conversation", &ChatSession::clear},
      {"/stats", "", "tell how the last answer went", &ChatSession::stats},
      {"/save", "FILE", "write the conversation as a file for --messages", &ChatSession::save},
      {"/help", "", "list these commands", &ChatSession::help},
      {"/exit", "", "end, like Ctrl-D", &ChatSession::exit},
  };
  return list;
}

int ChatSession::run() {
  while (!done_) {
    const std::optional<std::string> message = read_message();
    if (!message) break;
    try {
      handle(*message);
    } catch (const Error& e) {
      print_error(e.what());
      if (failure_ == 0) failure_ = exit_code(e.code());
    }
  }
  return failure_;
}

// One line, or all lines between """ and """. Nothing at the end of the input.
std::optional<std::string> ChatSession::read_message() {
  Line line = reader_.read("> ");
  if (line.kind == Line::Kind::kEnd) return std::nullopt;
  if (!line.text.starts_with(kQuotes)) return line.text;
  std::string text = line.text.substr(kQuotes.size());
  while (!text.ends_with(kQuotes)) {
    line = reader_.read(". ");
    if (line.kind == Line::Kind::kInterrupted) return "";
    if (line.kind == Line::Kind::kEnd) return text;
    text += "\n" + line.text;
  }
  text.resize(text.size() - kQuotes.size());
  // Quotes on lines of their own add no empty lines.
  if (text.starts_with('\n')) text.erase(0, 1);
  if (text.ends_with('\n')) text.pop_back();
  return text;
}

void ChatSession::handle(const std::string& message) {
  if (message.starts_with('/') && message.find('\n') == std::string::npos) return run_command(message);
  if (!trim(message).empty()) say(message);
}

void ChatSession::run_command(const std::string& line) {
  const size_t end = std::min(line.find(' '), line.size());
  const std::string name = trim(line.substr(0, end)), argument = unquote(trim(line.substr(end)));
  std::vector<std::string> known;
  for (const Command& command : commands()) {
    known.emplace_back(command.name);
    if (command.name != name) continue;
    if (command.argument.empty() != argument.empty()) {
      throw Error(ErrorCode::kUsage, command.argument.empty()
                                         ? fmt::format("{} stands alone, found \"{}\" behind it", name, argument)
                                         : fmt::format("{} wants {} behind it", name, command.argument));
    }
    return (this->*command.run)(argument);
  }
  const std::string best = nearest(name, known);
  throw Error(ErrorCode::kUsage, fmt::format("there is no command {}: {}/help lists them", name,
                                             best.empty() ? "" : fmt::format("did you mean {}? ", best)));
}

void ChatSession::add_question(const std::string& text) {
  Message question{"user", {}};
  for (auto& [path, bytes] : waiting_) {
    question.content.push_back(ContentPart::of_image(std::move(bytes)));
    conversation_.pictures.push_back(path);
  }
  waiting_.clear();
  question.content.push_back(ContentPart::of_text(text));
  conversation_.messages.push_back(std::move(question));
}

void ChatSession::say(const std::string& text) {
  const size_t messages = conversation_.messages.size(), pictures = conversation_.pictures.size();
  const auto take_back = [&] {
    conversation_.messages.resize(messages);
    conversation_.pictures.resize(pictures);
  };
  add_question(text);
  Request request{.messages = conversation_.messages,
                  .sampling = options_.sampling,
                  .skip_special_tokens = options_.skip_special_tokens};
  request.prompt.images = options_.images;
  bool first = true;
  try {
    last_ = ask(engine_, request, conversation_, !is_terminal(STDOUT_FILENO), [&](std::string_view delta) {
      print(first ? strip_blank(delta) : delta);
      first = false;
    });
  } catch (...) {
    take_back();
    throw;
  }
  print("\n");
  if (last_->text().empty() && last_->finish_reason() == FinishReason::kCancelled) return take_back();
  conversation_.messages.push_back({"assistant", {ContentPart::of_text(std::string(strip_blank(last_->text())))}});
}

void ChatSession::add_image(const std::string& path) {
  waiting_.emplace_back(path, read_picture(path));
  print_note(fmt::format("{} with the next question\n",
                         waiting_.size() == 1 ? "1 picture goes" : fmt::format("{} pictures go", waiting_.size())),
             Color::kDim);
}

void ChatSession::clear(const std::string&) {
  conversation_ = {};
  waiting_.clear();
  last_.reset();
  if (options_.system) conversation_.messages.push_back({"system", {ContentPart::of_text(*options_.system)}});
}

void ChatSession::stats(const std::string&) {
  if (!last_) return print("there is no answer yet\n");
  const Timings& t = last_->timings;
  const size_t prompt = last_->prompt_token_ids.size(), answer = last_->token_ids().size();
  print(
      fmt::format("prompt   {} tokens, {} of them for {} tiles\n"
                  "answer   {} tokens, {:.1f} a second, ended by {}\n"
                  "first    after {:.0f} ms: input {:.0f}, pictures {:.0f}, prompt {:.0f}\n"
                  "context  {} of {} tokens\n",
                  prompt, last_->usage.image_tokens, last_->usage.tiles, answer, t.decode_tokens_per_s,
                  finish_reason_name(last_->finish_reason()), t.ttft_ms, t.preprocess_ms, t.vision_ms, t.prefill_ms,
                  prompt + answer, engine_.max_model_len()));
}

void ChatSession::save(const std::string& path) {
  write_file(path, format_messages(conversation_));
  print_note(fmt::format("{} messages saved\n", conversation_.messages.size()), Color::kDim);
}

void ChatSession::help(const std::string&) {
  for (const Command& command : commands())
    print(fmt::format("{:<12} {}\n", fmt::format("{} {}", command.name, command.argument), command.help));
  print("\"\"\"          begins a text of several lines, and ends it\nCtrl-C       stops an answer, Ctrl-D ends\n");
}

}  // namespace idefics::cli
