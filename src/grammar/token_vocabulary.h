// The tokens of a tokenizer as a tree over their bytes.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "grammar/utf8_position.h"
#include "text/tokenizer.h"

namespace idefics::grammar {

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
    AsciiSet ascii;  // with `others` and `chars`, below
    uint32_t end;
    uint32_t first_token;  // the tokens that end here: tokens()[first_token .. the next node's first_token)
    uint16_t depth;        // bytes from the root; 0: the root
    // What the node and those below it add to their parent, in characters: the longest way has `chars` of them, those
    // of ASCII are in `ascii`, and `others` when there are any beyond it; the last one of a token may be cut off. chars
    // is kNotText where it is no text: not UTF-8, or the parent ends within a character.
    uint16_t chars;
    uint16_t end_char;  // characters from the root, the last one may be cut off; any number if that is no text
    uint8_t byte;
    bool others;
  };
  static constexpr uint16_t kNotText = 0xffff;
  // One more than there are nodes; the last one is a sentinel.
  std::span<const Node> nodes() const { return nodes_; }
  std::span<const int32_t> tokens_at(uint32_t node) const {
    return std::span(tokens_).subspan(nodes_[node].first_token,
                                      nodes_[node + 1].first_token - nodes_[node].first_token);
  }
  // All tokens of the tree, in the order of the nodes: those of node n and below are tokens()[nodes()[n].first_token ..
  // nodes()[nodes()[n].end].first_token).
  std::span<const int32_t> tokens() const { return tokens_; }
  // Of each of these the characters, 255 if there are more.
  std::span<const uint8_t> token_chars() const { return token_chars_; }
  // The bits of these, as a mask.
  std::span<const uint32_t> all_bits() const { return all_bits_; }
  // Whether a token begins with `text` and goes on after it.
  bool has_longer(std::string_view text) const;

 private:
  void sum_up();

  Tokenizer tokenizer_;
  int32_t size_ = 0;
  uint32_t longest_ = 0;
  std::vector<Node> nodes_;
  std::vector<int32_t> tokens_;       // by node
  std::vector<uint8_t> token_chars_;  // by place in tokens_
  std::vector<uint32_t> all_bits_;
  std::string arena_;            // all bytes
  std::vector<uint32_t> begin_;  // [size + 1] by id, in arena_
};

}  // namespace idefics::grammar
