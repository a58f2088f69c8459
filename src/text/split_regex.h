// The regular expressions of pre-tokenizers: the dialect of tokenizer.json (Oniguruma's Ruby syntax), run by PCRE2.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "text/text_range.h"

namespace idefics {

// Work space of one thread for any number of expressions and texts.
class RegexScratch {
 public:
  RegexScratch();
  void* match_data() const { return match_data_.get(); }

 private:
  struct Free {
    void operator()(void* match_data) const;
  };
  std::unique_ptr<void, Free> match_data_;
};

// One compiled expression. Only what means the same in both dialects is accepted, and what differs is rewritten:
//   literals, escaped punctuation, \r \n \t \f, \s \S \d \w (as Unicode has them), \p{…} \P{…} \p{^…}, `.`
//   [ ] of the same, with ranges, not nested
//   | ( ) (?: ) (?i: ) (?= ) (?! ) (?<= ) (?<! ) (?> )
//   * + ? and their lazy (?) and possessive (+) forms, {n} {n,} {n,m}
// Characters that Unicode assigned after the version that PCRE2 knows (14 in PCRE2 10.42, the reference has 16) count
// as unassigned. Threads: reading is free for all, with one RegexScratch each.
class SplitRegex {
 public:
  // Errors: kBadModel "<name> …" for what is not accepted and for what PCRE2 cannot compile.
  static SplitRegex compile(std::string_view pattern, const std::string& name);

  // One character of a word in the sense of `single_word`: \w of Rust's regular expressions.
  static SplitRegex word_character();

  // The leftmost match that begins at or after `from`; look-behind sees what is before `from`.
  // REQUIRES: text is UTF-8 and `from` is at the start of a character or the end.
  // Errors: kInvalidValue when the match costs too much (an expression that backtracks without end).
  std::optional<TextRange> find(std::string_view text, size_t from, const RegexScratch& scratch) const;

 private:
  static SplitRegex compile_native(std::string_view pattern, const std::string& name);
  explicit SplitRegex(std::shared_ptr<const void> code) : code_(std::move(code)) {}

  std::shared_ptr<const void> code_;
};

}  // namespace idefics
