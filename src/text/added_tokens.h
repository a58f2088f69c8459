// Added tokens: strings that are found in the raw text before anything else happens to it.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/json.h"
#include "text/id_map.h"
#include "text/split_regex.h"
#include "text/text_range.h"
#include "text/vocabulary.h"

namespace idefics {

struct AddedToken {
  std::string content;
  int32_t id = 0;
  bool single_word = false;  // only where no letter, digit or the like is next to it
  bool lstrip = false;       // swallows the white space to its left
  bool rstrip = false;       // and to its right
  bool normalized = false;   // searched after all the others, in what these left over
  bool special = false;      // a control token
};

// Which matches of special tokens count. The others are searched the same way wherever the text came from.
struct Trust {
  enum class Kind {
    kAll,     // every match is the token
    kNone,    // none is: the text runs on through them
    kExcept,  // those that lie wholly in `untrusted` become pieces of ordinary text of their own
  };
  Kind kind = Kind::kAll;
  std::span<const TextRange> untrusted;  // sorted, disjoint, bytes of the whole text
};

// A stretch of the text after the search: a token, or text that is to be encoded on its own.
struct Segment {
  size_t begin, end;
  const AddedToken* token;  // nullptr: text
  bool untrusted = false;   // text that would have been a special token, had it not come from a user
};

// Threads: reading is free for all.
class AddedTokens {
 public:
  // From the array `added_tokens`; `name` says where it stands. Errors: kBadModel, e.g. for an id outside of
  // [0, Vocabulary::kMaxId], for two tokens of one id, and when the model's vocabulary contradicts.
  static AddedTokens parse(const json::array& array, const std::string& name, const Vocabulary& vocabulary);

  const std::vector<AddedToken>& all() const { return tokens_; }
  std::optional<int32_t> find(std::string_view content) const;
  // Cuts `text` at the added tokens, in order and without gaps but for white space that a token swallowed.
  std::vector<Segment> split(std::string_view text, const Trust& trust) const;

 private:
  // A set of strings for leftmost-longest search.
  class Trie {
   public:
    explicit Trie(size_t max_bytes) : next_(max_bytes), token_at_(1, -1) {}
    void add(std::string_view content, int32_t token);
    // The index of the longest string that stands at `at`, or -1.
    int32_t longest(std::string_view text, size_t at) const;

   private:
    IdMap next_;                     // (node, byte) → node; node 0 is the root
    std::vector<int32_t> token_at_;  // by node
    bool starts_[256] = {};          // bytes that begin a string
  };

  AddedTokens(size_t raw_bytes, size_t normalized_bytes) : raw_(raw_bytes), normalized_(normalized_bytes) {}

  void add(AddedToken token, const std::string& name, const Vocabulary& vocabulary);
  void search(const Trie& trie, std::string_view text, Segment part, const Trust& trust,
              std::vector<Segment>& out) const;
  bool stands_alone(std::string_view text, size_t first, size_t begin, size_t end, const RegexScratch& scratch) const;

  std::vector<AddedToken> tokens_;
  std::unordered_map<std::string, int32_t> ids_;
  std::unordered_map<int32_t, size_t> by_id_;
  Trie raw_, normalized_;
  std::optional<SplitRegex> word_;  // one character of a word; there when some token is a single_word
};

}  // namespace idefics
