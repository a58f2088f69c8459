#include "engine/output_text.h"

#include <algorithm>
#include <string_view>

namespace idefics {

namespace {

// The place in `text`, not before `from`, where the longest proper prefix of any stop string begins that ends the text.
size_t possible_start(std::string_view text, size_t from, const std::vector<std::string>& stop) {
  size_t start = text.size();
  for (const std::string& s : stop) {
    const size_t longest = std::min(s.size() - 1, text.size() - from);
    for (size_t length = longest; length > 0; --length) {
      if (text.substr(text.size() - length) == std::string_view(s).substr(0, length)) {
        start = std::min(start, text.size() - length);
        break;
      }
    }
  }
  return start;
}

}  // namespace

OutputText::OutputText(const Tokenizer& tokenizer, bool skip_special_tokens, std::vector<std::string> stop,
                       bool keep_stop)
    : stop_(std::move(stop)), keep_stop_(keep_stop), full_(tokenizer, false), shown_(tokenizer, skip_special_tokens) {}

std::string OutputText::push(int32_t id) {
  return take_new(stop_.empty() ? std::string() : full_.push(id), shown_.push(id));
}

std::string OutputText::finish() {
  std::string text = take_new(stop_.empty() ? std::string() : full_.finish(), shown_.finish());
  if (!stopped_ && emitted_ < shown_text_.size()) {
    text += shown_text_.substr(emitted_);
    emitted_ = shown_text_.size();
  }
  return text;
}

std::string OutputText::take_new(const std::string& full_piece, std::string shown_piece) {
  if (stopped_) return "";
  shown_text_ += shown_piece;
  if (stop_.empty()) {
    emitted_ = shown_text_.size();
    return shown_piece;
  }
  full_text_ += full_piece;
  marks_.push_back({full_text_.size(), shown_text_.size()});
  size_t found = std::string::npos, length = 0;
  for (const std::string& s : stop_) {
    const size_t at = full_text_.find(s, searched_);
    if (at < found) length = s.size();
    found = std::min(found, at);
  }
  if (found != std::string::npos) {
    stopped_ = true;
    return emit_until(keep_stop_ ? found + length : found);
  }
  searched_ = possible_start(full_text_, searched_, stop_);
  return emit_until(searched_);
}

std::string OutputText::emit_until(size_t full_position) {
  // Inside one token's piece both texts run in step, unless the piece is not shown at all.
  const auto mark =
      std::lower_bound(marks_.begin(), marks_.end(), full_position, [](const Mark& m, size_t p) { return m.full < p; });
  size_t end = shown_text_.size();
  if (mark != marks_.end()) {
    const Mark before = mark == marks_.begin() ? Mark{0, 0} : *(mark - 1);
    end = std::min(before.shown + (full_position - before.full), mark->shown);
  }
  if (end <= emitted_) return "";
  std::string text = shown_text_.substr(emitted_, end - emitted_);
  emitted_ = end;
  return text;
}

}  // namespace idefics
