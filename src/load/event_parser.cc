#include "load/event_parser.h"

namespace idefics::load {

bool EventParser::push(std::string_view bytes) {
  while (!failed_ && !bytes.empty()) {
    // A line ends with CR, LF, or both, which may come apart.
    if (after_return_ && bytes.front() == '\n') bytes.remove_prefix(1);
    after_return_ = false;
    const size_t end = bytes.find_first_of("\r\n");
    const std::string_view piece = bytes.substr(0, end);
    if (line_.size() + piece.size() > kMaxEventBytes) {
      failed_ = true;
      break;
    }
    line_ += piece;
    if (end == std::string_view::npos) break;
    after_return_ = bytes[end] == '\r';
    bytes.remove_prefix(end + 1);
    failed_ = !end_line();
  }
  return !failed_;
}

bool EventParser::end_line() {
  if (line_.empty()) {
    if (has_data_) on_event_(data_);
    data_.clear();
    has_data_ = false;
    return true;
  }
  const size_t colon = std::min(line_.find(':'), line_.size());
  if (std::string_view(line_).substr(0, colon) == "data") {
    std::string_view value = std::string_view(line_).substr(std::min(colon + 1, line_.size()));
    if (value.starts_with(' ')) value.remove_prefix(1);
    if (data_.size() + 1 + value.size() > kMaxEventBytes) return false;
    if (has_data_) data_ += '\n';
    data_ += value;
    has_data_ = true;
  }
  line_.clear();
  return true;
}

}  // namespace idefics::load
