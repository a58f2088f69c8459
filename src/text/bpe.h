// Byte-level byte pair encoding: a piece of text → ids.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "text/id_map.h"
#include "text/vocabulary.h"

namespace idefics {

// Starts with one symbol a byte and merges the adjacent pair of the lowest rank, the leftmost among equals, until no
// pair has one. A byte without a token is the unknown token, or nothing when the model has none.
// Cost: O(n log n) in the length of a piece. Threads: reading is free for all.
class Bpe {
 public:
  // Work space of one thread; any number of pieces may use it one after the other.
  struct Scratch {
    struct Symbol {
      int32_t id;
      uint32_t previous, next;  // indices of the living neighbours, kEnd at the ends
      uint32_t rank;            // of the pair (this, next), IdMap::kNone when it has none
    };
    std::vector<Symbol> symbols;
    std::vector<uint64_t> heap;  // rank and index of pairs, some of them out of date
  };

  // From the `model` object of a tokenizer.json. Errors: kBadModel, also for what is not supported (other models,
  // dropout, byte_fallback, prefixes and suffixes of subwords).
  static Bpe parse(const JsonObject& model);

  const Vocabulary& vocabulary() const { return vocabulary_; }
  // Keeps the whole-piece lookup from giving `id`, so that text does not become a control token when it spells one.
  void reserve(int32_t id);
  // Appends the ids of a piece. REQUIRES: fewer than 2^32 - 1 bytes.
  void encode(std::string_view piece, Scratch& scratch, std::vector<int32_t>& ids) const;

 private:
  Bpe(Vocabulary vocabulary, size_t num_merges) : vocabulary_(std::move(vocabulary)), ranks_(num_merges) {}

  void add_merge(const json::value& merge, const JsonObject& model);
  void find_bytes_and_unknown(const JsonObject& model);
  void find_whole_tokens();
  void merge(std::string_view piece, Scratch& scratch) const;
  void start(std::string_view piece, Scratch& scratch) const;

  Vocabulary vocabulary_;
  IdMap ranks_;                          // (left id, right id) → rank
  std::vector<int32_t> merged_;          // by rank: the id of the merged token
  std::array<int32_t, 256> byte_ids_{};  // the token of each byte, or -1
  int32_t unknown_ = -1;                 // the token of bytes that have none, or -1
  bool fuse_unknown_ = false;            // a run of such bytes becomes one token
  // By id: merging the bytes of the token gives the token itself. Most words of a text are such tokens, so one lookup
  // replaces their merging. With `ignore_merges` every token counts as one.
  std::vector<uint8_t> whole_;
};

}  // namespace idefics
