// The tokens of a tokenizer as a tree over their bytes.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "text/tokenizer.h"

namespace idefics::grammar {

class ByteSet {
 public:
  void add(uint8_t byte) { words_[byte / 64] |= uint64_t{1} << (byte % 64); }
  void add(const ByteSet& other) {
    for (size_t i = 0; i < words_.size(); ++i) words_[i] |= other.words_[i];
  }
  bool is_subset_of(const ByteSet& other) const {
    uint64_t outside = 0;
    for (size_t i = 0; i < words_.size(); ++i) outside |= words_[i] & ~other.words_[i];
    return outside == 0;
  }

 private:
  std::array<uint64_t, 4> words_{};
};

// Built once per tokenizer and shared by all grammars. Control tokens (special added tokens) and tokens without bytes
// are not in the tree: they cannot be part of a constrained text. Added tokens that are not special are, as their
// bytes. Threads: const, free for all.
class TokenVocabulary {
 public:
  explicit TokenVocabulary(const Tokenizer& tokenizer);

  int32_t size() const { return size_; }
  // Words of a mask: bit id % 32 of word id / 32.
  size_t mask_words() const { return (static_cast<size_t>(size_) + 31) / 32; }
  const Tokenizer& tokenizer() const { return tokenizer_; }
  // The bytes of a token of the tree; empty for all others.
  std::string_view bytes(int32_t id) const;
  // The length of the longest token of the tree.
  uint32_t longest() const { return longest_; }

  // The tree in the order of a walk, parents before children; node 0 is the root. The nodes below node n are
  // n + 1 .. end(n) - 1.
  struct Node {
    uint32_t end;
    uint32_t first_token;  // the tokens that end here: tokens()[first_token .. the next node's first_token)
    uint16_t depth;        // bytes from the root; 0: the root
    uint8_t byte;
  };
  // One more than there are nodes; the last one is a sentinel.
  std::span<const Node> nodes() const { return nodes_; }
  std::span<const int32_t> tokens_at(uint32_t node) const {
    return std::span(tokens_).subspan(nodes_[node].first_token,
                                      nodes_[node + 1].first_token - nodes_[node].first_token);
  }
  // The tokens that end below `node`, without its own.
  std::span<const int32_t> tokens_below(uint32_t node) const {
    const uint32_t first = nodes_[node + 1].first_token;
    return std::span(tokens_).subspan(first, nodes_[nodes_[node].end].first_token - first);
  }
  // What is below a node with kMinBelow nodes or more: all bytes, and how many levels. Nothing for the others.
  struct Below {
    ByteSet bytes;
    uint32_t levels = 0;
  };
  static constexpr uint32_t kMinBelow = 4;
  const Below* below(uint32_t node) const {
    return below_index_[node] == 0 ? nullptr : &below_[below_index_[node] - 1];
  }
  // Whether a token begins with `text` and goes on after it.
  bool has_longer(std::string_view text) const;

 private:
  void sum_up();

  Tokenizer tokenizer_;
  int32_t size_ = 0;
  uint32_t longest_ = 0;
  std::vector<Node> nodes_;
  std::vector<int32_t> tokens_;  // by node
  std::vector<Below> below_;
  std::vector<uint32_t> below_index_;  // by node: its place in below_, from 1
  std::string arena_;                  // all bytes
  std::vector<uint32_t> begin_;        // [size + 1] by id, in arena_
};

}  // namespace idefics::grammar
