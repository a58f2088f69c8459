#include "cli/terminal.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "base/utf8.h"
#include "idefics/error.h"

namespace idefics::cli {

namespace {

bool is_set(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr && *value != '\0';
}

bool use_color(int fd) {
  const char* term = std::getenv("TERM");
  return is_terminal(fd) && !is_set("NO_COLOR") && (term == nullptr || std::strcmp(term, "dumb") != 0);
}

std::string paint(int fd, std::string text, Color color) {
  if (color == Color::kNone || !use_color(fd)) return text;
  const char* code = color == Color::kRed ? "31" : color == Color::kYellow ? "33" : color == Color::kGreen ? "32" : "2";
  const std::string_view end = text.ends_with('\n') ? "\n" : "";
  text.resize(text.size() - end.size());
  return fmt::format("\x1b[{}m{}\x1b[0m{}", code, text, end);
}

// 0, or the errno of the first failure.
int write_all(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno;
    bytes.remove_prefix(static_cast<size_t>(n));
  }
  return 0;
}

bool is_control(char32_t c) { return c < 0x20 || (c >= 0x7f && c < 0xa0); }

}  // namespace

bool is_terminal(int fd) { return ::isatty(fd) == 1; }

void print(std::string_view text, Color color) {
  const bool terminal = is_terminal(STDOUT_FILENO);
  const int error =
      write_all(STDOUT_FILENO, terminal ? paint(STDOUT_FILENO, printable(text), color) : std::string(text));
  if (error == EPIPE) throw OutputClosed{};
  if (error != 0) throw Error(ErrorCode::kIo, fmt::format("standard output: cannot write: {}", std::strerror(error)));
}

void print_note(std::string_view text, Color color) {
  write_all(STDERR_FILENO, paint(STDERR_FILENO, printable(text), color));
}

void print_error(std::string_view message) {
  write_all(STDERR_FILENO,
            fmt::format("idefics: {} {}\n", paint(STDERR_FILENO, "error:", Color::kRed), one_line(message)));
}

std::string printable(std::string_view text) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const CodePoint c = decode_utf8(text, at);
    if (c.value == '\n' || c.value == '\t' || !is_control(c.value)) append_utf8(out, c.value);
    at += static_cast<size_t>(c.length);
  }
  return out;
}

std::string one_line(std::string_view text) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const CodePoint c = decode_utf8(text, at);
    at += static_cast<size_t>(c.length);
    if (c.value == '\n') {
      out += "\\n";
    } else if (is_control(c.value)) {
      out += fmt::format("\\x{:02x}", static_cast<uint32_t>(c.value));
    } else {
      append_utf8(out, c.value);
    }
  }
  return out;
}

}  // namespace idefics::cli
