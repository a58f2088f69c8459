// UTF-8: decoding one code point, checking a text, repairing one the way the reference does.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace idefics {

// The code point that starts at `text[at]` and its length in bytes. Ill-formed input (overlong, surrogate, above
// U+10FFFF, cut off) gives {U+FFFD, length of the maximal ill-formed subpart}, at least 1, and `valid` false.
struct CodePoint {
  char32_t value;
  int length;
  bool valid;
};
CodePoint decode_utf8(std::string_view text, size_t at);
// Appends a code point as UTF-8.
void append_utf8(std::string& out, char32_t value);
// True when the whole text is well-formed.
bool is_utf8(std::string_view text);
// The text with every maximal ill-formed subpart replaced by U+FFFD (what Rust's from_utf8_lossy and Python's "replace"
// do).
std::string repair_utf8(std::string_view bytes);
// How many bytes at the end of `bytes` are the start of a character that more bytes could complete (0 to 3).
size_t incomplete_utf8_tail(std::string_view bytes);

}  // namespace idefics
