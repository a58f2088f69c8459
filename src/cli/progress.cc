#include "cli/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include "cli/terminal.h"

namespace idefics::cli {

namespace {

constexpr std::chrono::milliseconds kPause{100};  // between two updates of the token count

// Past print_note, which would take the escape sequences out.
void write_raw(const std::string& text) {
  if (::write(STDERR_FILENO, text.data(), text.size()) < 0) return;
}

}  // namespace

Progress::Progress(bool answer_elsewhere) : active_(is_terminal(STDERR_FILENO)), count_tokens_(answer_elsewhere) {}

void Progress::show(const std::string& text) {
  if (!active_) return;
  write_raw("\r\x1b[K" + printable(text));
  shown_ = true;
  last_shown_ = std::chrono::steady_clock::now();
}

void Progress::say(const std::string& text) { show(text + " ..."); }

void Progress::tiles(int done, int total) { show(fmt::format("looking at the pictures: tile {} of {}", done, total)); }

void Progress::token() {
  const auto now = std::chrono::steady_clock::now();
  if (++tokens_ == 1) first_token_ = now;
  if (!count_tokens_) return clear();
  if (tokens_ > 1 && now - last_shown_ < kPause) return;
  const double seconds = std::chrono::duration<double>(now - first_token_).count();
  const double rate = seconds > 0 ? (tokens_ - 1) / seconds : 0;
  show(fmt::format("about {} tokens, {:.1f} a second", tokens_, rate));
}

void Progress::clear() {
  if (!shown_) return;
  write_raw("\r\x1b[K");
  shown_ = false;
}

}  // namespace idefics::cli
