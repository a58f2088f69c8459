// One line on standard error that says how far the work is. Shows on a terminal only.
#pragma once

#include <chrono>
#include <string>

namespace idefics::cli {

class Progress {
 public:
  // `answer_elsewhere`: the answer does not go to the same terminal, so tokens can be counted while they come.
  explicit Progress(bool answer_elsewhere);
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  ~Progress() { clear(); }

  void say(const std::string& text);  // "loading the model"
  void tiles(int done, int total);
  void token();  // one more, or a piece of text that took several
  void clear();

 private:
  void show(const std::string& text);

  bool active_, count_tokens_;
  bool shown_ = false;
  int tokens_ = 0;
  std::chrono::steady_clock::time_point first_token_{}, last_shown_{};
};

}  // namespace idefics::cli
