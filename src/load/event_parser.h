// Server-sent events, from bytes as they come. A server is not trusted.
#pragma once

#include <functional>
#include <string>
#include <string_view>

namespace idefics::load {

// Most bytes of one event's data, and of one line.
inline constexpr size_t kMaxEventBytes = size_t{4} << 20;

class EventParser {
 public:
  explicit EventParser(std::function<void(std::string_view data)> on_event) : on_event_(std::move(on_event)) {}

  // Calls `on_event` with the data of each event that becomes complete: its data lines, joined by line feeds. Comments,
  // other fields and events without data are left out. False, for ever: the server sent too much for one event.
  bool push(std::string_view bytes);

 private:
  bool end_line();

  std::function<void(std::string_view)> on_event_;
  std::string line_, data_;
  bool has_data_ = false, after_return_ = false, failed_ = false;
};

}  // namespace idefics::load
