#include "grammar/token_vocabulary.h"

#include <algorithm>

namespace idefics::grammar {

namespace {

// Longer tokens are left out of the tree. Real ones have up to some hundred bytes; a mask is a walk as deep as this.
constexpr size_t kMaxTokenBytes = 1024;

}  // namespace

TokenVocabulary::TokenVocabulary(const Tokenizer& tokenizer) : tokenizer_(tokenizer), size_(tokenizer.vocab_size()) {
  std::vector<int32_t> order;
  begin_.reserve(static_cast<size_t>(size_) + 1);
  for (int32_t id = 0; id < size_; ++id) {
    begin_.push_back(static_cast<uint32_t>(arena_.size()));
    if (tokenizer_.is_special(id)) continue;
    const std::string token = tokenizer_.token_bytes(id);
    if (token.empty() || token.size() > kMaxTokenBytes) continue;
    arena_ += token;
    order.push_back(id);
  }
  begin_.push_back(static_cast<uint32_t>(arena_.size()));
  std::sort(order.begin(), order.end(), [this](int32_t a, int32_t b) {
    const int compared = bytes(a).compare(bytes(b));
    return compared != 0 ? compared < 0 : a < b;
  });

  std::vector<uint32_t> path = {0};  // nodes from the root to the last token's
  nodes_.push_back({});
  std::string_view last;
  for (const int32_t id : order) {
    const std::string_view token = bytes(id);
    longest_ = std::max(longest_, static_cast<uint32_t>(token.size()));
    const auto common =
        static_cast<size_t>(std::mismatch(token.begin(), token.end(), last.begin(), last.end()).first - token.begin());
    while (path.size() > common + 1) {
      nodes_[path.back()].end = static_cast<uint32_t>(nodes_.size());
      path.pop_back();
    }
    for (size_t i = common; i < token.size(); ++i) {
      path.push_back(static_cast<uint32_t>(nodes_.size()));
      Node node{};
      node.first_token = static_cast<uint32_t>(tokens_.size());
      node.depth = static_cast<uint16_t>(i + 1);
      node.byte = static_cast<uint8_t>(token[i]);
      nodes_.push_back(node);
    }
    tokens_.push_back(id);
    last = token;
  }
  for (const uint32_t node : path) nodes_[node].end = static_cast<uint32_t>(nodes_.size());
  Node sentinel{};
  sentinel.end = static_cast<uint32_t>(nodes_.size() + 1);
  sentinel.first_token = static_cast<uint32_t>(tokens_.size());
  nodes_.push_back(sentinel);
  sum_up();
  all_bits_.assign(mask_words(), 0);
  for (const int32_t id : tokens_) all_bits_[static_cast<size_t>(id) / 32] |= 1u << (id % 32);
}

void TokenVocabulary::sum_up() {
  const size_t count = nodes_.size() - 1;
  std::vector<Utf8Position> position(count);
  std::vector<uint32_t> parent(count, 0), path(longest_ + 1, 0);
  for (uint32_t n = 1; n < count; ++n) {
    parent[n] = path[nodes_[n].depth - 1u];
    path[nodes_[n].depth] = n;
    position[n] = position[parent[n]].next(nodes_[n].byte);
    nodes_[n].end_char = static_cast<uint16_t>(nodes_[parent[n]].end_char + position[parent[n]].at_boundary());
    for (uint32_t i = nodes_[n].first_token; i < nodes_[n + 1].first_token; ++i) {
      token_chars_.push_back(static_cast<uint8_t>(std::min<int>(nodes_[n].end_char, 255)));
    }
  }
  // From the last node to the first, so that what is below a node is summed up before the node itself. Until it is,
  // its `chars` are the most that one of its children adds.
  for (auto n = static_cast<uint32_t>(count); n-- > 1;) {
    Node& node = nodes_[n];
    if (node.byte < 0x80) {
      node.ascii.add(node.byte);
    } else {
      node.others = true;
    }
    if (!position[n].is_valid() || node.chars == kNotText) {
      node.chars = kNotText;
    } else {
      node.chars = std::max<uint16_t>(1, static_cast<uint16_t>(node.chars + position[n].at_boundary()));
    }
    Node& above = nodes_[parent[n]];
    above.ascii.add(node.ascii);
    above.others = above.others || node.others;
    above.chars = std::max(above.chars, node.chars);
    if (!position[parent[n]].at_boundary()) node.chars = kNotText;
  }
}

std::string_view TokenVocabulary::bytes(int32_t id) const {
  if (id < 0 || id >= size_) return {};
  const auto i = static_cast<size_t>(id);
  return std::string_view(arena_).substr(begin_[i], begin_[i + 1] - begin_[i]);
}

bool TokenVocabulary::has_longer(std::string_view text) const {
  uint32_t node = 0;
  for (const char c : text) {
    uint32_t child = node + 1;
    while (child < nodes_[node].end && nodes_[child].byte != static_cast<uint8_t>(c)) child = nodes_[child].end;
    if (child >= nodes_[node].end) return false;
    node = child;
  }
  return nodes_[node].end > node + 1;
}

}  // namespace idefics::grammar
