#include "cli/line_reader.h"

#include <histedit.h>
#include <langinfo.h>
#include <signal.h>
#include <unistd.h>

#include <clocale>
#include <cstdio>
#include <cstring>
#include <iostream>

#include "cli/terminal.h"
#include "idefics/error.h"

namespace idefics::cli {

namespace {

class PlainReader : public LineReader {
 public:
  Line read(const std::string&) override {
    Line line;
    if (std::getline(std::cin, line.text)) line.kind = Line::Kind::kText;
    return line;
  }
};

// libedit decodes what is typed by the locale. Without one that knows UTF-8 it would drop every letter beyond ASCII.
void choose_utf8_locale() {
  std::setlocale(LC_CTYPE, "");
  if (std::strcmp(::nl_langinfo(CODESET), "UTF-8") != 0) std::setlocale(LC_CTYPE, "C.UTF-8");
}

class EditReader : public LineReader {
 public:
  EditReader() {
    choose_utf8_locale();
    edit_.reset(::el_init("idefics", stdin, stdout, stderr));
    history_.reset(::history_init());
    if (!edit_ || !history_) throw Error(ErrorCode::kIo, "the terminal cannot be used for line editing");
    HistEvent event;
    ::history(history_.get(), &event, H_SETSIZE, 500);
    EditLine* el = edit_.get();
    ::el_set(el, EL_CLIENTDATA, this);
    ::el_set(el, EL_PROMPT, &EditReader::prompt_of);
    ::el_set(el, EL_EDITOR, "emacs");
    ::el_set(el, EL_HIST, ::history, history_.get());
    // Ctrl-C and Ctrl-Z come as keys while a line is edited: Ctrl-C drops the line instead of ending the program.
    ::el_set(el, EL_ADDFN, "idefics-drop", "forget the line", &EditReader::drop);
    ::el_set(el, EL_ADDFN, "idefics-suspend", "stop the program until fg", &EditReader::suspend);
    ::el_set(el, EL_SETTY, "-d", "-isig", nullptr);
    ::el_set(el, EL_BIND, "^C", "idefics-drop", nullptr);
    ::el_set(el, EL_BIND, "^Z", "idefics-suspend", nullptr);
  }

  Line read(const std::string& prompt) override {
    prompt_ = prompt;
    dropped_ = false;
    int length = 0;
    const char* text = ::el_gets(edit_.get(), &length);
    if (dropped_) return {Line::Kind::kInterrupted, ""};
    if (text == nullptr || length <= 0) {
      print("\n");
      return {Line::Kind::kEnd, ""};
    }
    HistEvent event;
    if (length > 1) ::history(history_.get(), &event, H_ENTER, text);
    std::string line(text, static_cast<size_t>(length));
    if (line.ends_with('\n')) line.pop_back();
    return {Line::Kind::kText, std::move(line)};
  }

 private:
  static EditReader& self(EditLine* el) {
    void* data = nullptr;
    ::el_get(el, EL_CLIENTDATA, &data);
    return *static_cast<EditReader*>(data);
  }
  static char* prompt_of(EditLine* el) { return self(el).prompt_.data(); }
  static unsigned char drop(EditLine* el, int) {
    self(el).dropped_ = true;
    std::fputs("^C\n", stdout);
    return CC_NEWLINE;
  }
  static unsigned char suspend(EditLine* el, int) {
    ::el_set(el, EL_PREP_TERM, 0);
    ::raise(SIGTSTP);
    ::el_set(el, EL_PREP_TERM, 1);
    return CC_REDISPLAY;
  }

  struct End {
    void operator()(EditLine* el) const { ::el_end(el); }
    void operator()(History* history) const { ::history_end(history); }
  };
  std::unique_ptr<History, End> history_;
  std::unique_ptr<EditLine, End> edit_;
  std::string prompt_;
  bool dropped_ = false;
};

}  // namespace

std::unique_ptr<LineReader> make_line_reader() {
  if (is_terminal(STDIN_FILENO)) return std::make_unique<EditReader>();
  return std::make_unique<PlainReader>();
}

}  // namespace idefics::cli
