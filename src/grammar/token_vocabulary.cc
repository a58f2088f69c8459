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
  nodes_.push_back({0, 0, 0, 0});
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
      nodes_.push_back(
          {0, static_cast<uint32_t>(tokens_.size()), static_cast<uint16_t>(i + 1), static_cast<uint8_t>(token[i])});
    }
    tokens_.push_back(id);
    last = token;
  }
  for (const uint32_t node : path) nodes_[node].end = static_cast<uint32_t>(nodes_.size());
  nodes_.push_back({static_cast<uint32_t>(nodes_.size() + 1), static_cast<uint32_t>(tokens_.size()), 0, 0});
  sum_up();
}

// From the last node to the first, so that what is below a node is summed up before the node itself.
void TokenVocabulary::sum_up() {
  below_index_.assign(nodes_.size(), 0);
  for (auto node = static_cast<uint32_t>(nodes_.size()) - 1; node-- > 0;) {
    if (nodes_[node].end - node <= kMinBelow) continue;
    Below sum;
    for (uint32_t n = node + 1; n < nodes_[node].end;) {
      sum.bytes.add(nodes_[n].byte);
      sum.levels = std::max<uint32_t>(sum.levels, nodes_[n].depth - nodes_[node].depth);
      if (const Below* inner = below(n)) {
        sum.bytes.add(inner->bytes);
        sum.levels = std::max(sum.levels, nodes_[n].depth - nodes_[node].depth + inner->levels);
        n = nodes_[n].end;
      } else {
        ++n;
      }
    }
    below_.push_back(sum);
    below_index_[node] = static_cast<uint32_t>(below_.size());
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
