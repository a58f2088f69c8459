// From token ids to the text that a reader sees, as it comes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "text/tokenizer.h"

namespace idefics {

// Decodes a growing answer and watches for stop strings. Stop strings are looked for in the full text, special tokens
// included, even when those are not shown. Text that could still become a stop string is held back.
//
//   OutputText out(tokenizer, skip_special_tokens, {"</doctag>"});
//   print(out.push(id)); ... if (out.stopped()) ...; print(out.finish());
//
// The pieces that push and finish return add up to the answer: what `decode` gives for all ids, cut at the first stop
// string.
class OutputText {
 public:
  // `keep_stop`: the stop string that ends the text is part of it.
  OutputText(const Tokenizer& tokenizer, bool skip_special_tokens, std::vector<std::string> stop,
             bool keep_stop = false);

  std::string push(int32_t id);  // text that is now certain
  std::string finish();          // the rest, when generation ended
  bool stopped() const { return stopped_; }

 private:
  std::string emit_until(size_t full_position);
  std::string take_new(const std::string& full_piece, std::string shown_piece);

  struct Mark {  // how long both texts are after some token
    size_t full, shown;
  };
  std::vector<std::string> stop_;
  bool keep_stop_;
  StreamDecoder full_, shown_;
  std::string full_text_, shown_text_;
  std::vector<Mark> marks_;
  size_t searched_ = 0;  // no stop string starts before this place of the full text
  size_t emitted_ = 0;   // bytes of the shown text that were returned
  bool stopped_ = false;
};

}  // namespace idefics
