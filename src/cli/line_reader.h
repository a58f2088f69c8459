// Lines from whoever talks to the program.
#pragma once

#include <memory>
#include <optional>
#include <string>

namespace idefics::cli {

struct Line {
  enum class Kind { kText, kInterrupted, kEnd };  // kInterrupted: Ctrl-C, the line is to be forgotten
  Kind kind = Kind::kEnd;
  std::string text;  // without its end
};

class LineReader {
 public:
  virtual ~LineReader() = default;
  virtual Line read(const std::string& prompt) = 0;
};

// With editing and a history when standard input is a terminal; otherwise plain lines, and the prompt is not shown.
std::unique_ptr<LineReader> make_line_reader();

}  // namespace idefics::cli
