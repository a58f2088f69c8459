// Cuts text into the pieces within which BPE may merge: the `pre_tokenizer` of a tokenizer.json.
#pragma once

#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/json.h"
#include "text/split_regex.h"

namespace idefics {

// A chain of steps, each of which cuts every piece of the one before: Digits, Split (by an expression or a literal, any
// behavior), ByteLevel as the last. Threads: reading is free for all, with one Scratch each.
class PreTokenizer {
 public:
  struct Span {
    size_t begin, end;
    bool is_match;
  };
  // Work space of one thread.
  struct Scratch {
    RegexScratch regex;
    std::vector<Span> spans;
    std::vector<std::string_view> pieces, next;
    std::vector<std::string> prefixed;  // the texts of pieces that got a blank before them
  };

  // `value` is the pre_tokenizer, `name` says where it stands. Errors: kBadModel, naming what is not supported.
  static PreTokenizer parse(const json::value& value, const std::string& name);

  // The pieces of `text`, none of them empty, in order. They point into `text` and into `scratch` and live until the
  // next call. REQUIRES: text is UTF-8. Errors: as SplitRegex::find.
  const std::vector<std::string_view>& split(std::string_view text, Scratch& scratch) const;

 private:
  enum class Behavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };
  struct Cut {
    std::variant<SplitRegex, std::string> pattern;  // a literal is a string
    Behavior behavior = Behavior::kIsolated;
    bool invert = false;  // the pattern describes the pieces, not what is between them
  };
  struct PrefixBlank {};  // a blank before every piece that has none
  using Step = std::variant<Cut, PrefixBlank>;

  void add(const json::value& value, const std::string& name);
  void add_split(const JsonObject& object);
  void add_byte_level(const JsonObject& object);
  static Behavior behavior_of(const JsonObject& object);
  static void find_spans(const Cut& cut, std::string_view piece, Scratch& scratch);
  static void join_spans(Behavior behavior, std::vector<Span>& spans);
  static void apply(const Cut& cut, Scratch& scratch);
  static void apply(const PrefixBlank&, Scratch& scratch);

  std::vector<Step> steps_;
  bool has_byte_level_ = false;
};

}  // namespace idefics
