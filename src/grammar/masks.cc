#include "grammar/masks.h"

#include <algorithm>
#include <set>

#include "base/check.h"

namespace idefics::grammar {

namespace {

void set_bit(std::span<uint32_t> bits, int32_t id) { bits[static_cast<size_t>(id) / 32] |= 1u << (id % 32); }

// Walks the tree of tokens with a grammar: a configuration per level.
class TreeWalk {
 public:
  TreeWalk(const Program& program, const TokenVocabulary& vocabulary, StackTree& stacks, uint32_t max_depth)
      : vocabulary_(vocabulary), stacks_(stacks), recognizer_(program, max_depth), levels_(vocabulary.longest() + 1) {}

  Config& root() { return levels_[0].config; }
  Recognizer& recognizer() { return recognizer_; }

  // The nodes below `top`, whose configuration is root(). Calls take(id) for every token that stays in the grammar, and
  // leave(node) where the configuration is unknown.
  template <typename Take, typename Leave>
  void run(uint32_t top, Take&& take, Leave&& leave) {
    const auto nodes = vocabulary_.nodes();
    const size_t base = nodes[top].depth;
    levels_[0].mark = stacks_.size();
    for (uint32_t n = top + 1; n < nodes[top].end;) {
      const size_t depth = nodes[n].depth - base;
      const Level& parent = levels_[depth - 1];
      Level& level = levels_[depth];
      stacks_.truncate(parent.mark);
      recognizer_.step(stacks_, parent.config, nodes[n].byte, level.config);
      if (level.config.dead()) {
        n = nodes[n].end;
        continue;
      }
      level.mark = stacks_.size();
      for (const int32_t id : vocabulary_.tokens_at(n)) take(id);
      if (level.config.unknown && nodes[n].end > n + 1) leave(n);
      ++n;
    }
    stacks_.truncate(levels_[0].mark);
  }

 private:
  struct Level {
    Config config;
    size_t mark = 0;
  };
  const TokenVocabulary& vocabulary_;
  StackTree& stacks_;
  Recognizer recognizer_;
  std::vector<Level> levels_;
};

}  // namespace

MaskCache::MaskCache(std::shared_ptr<const Program> program, std::shared_ptr<const TokenVocabulary> vocabulary,
                     uint32_t max_depth)
    : program_(std::move(program)), vocabulary_(std::move(vocabulary)), max_depth_(max_depth) {}

void MaskCache::add(StackTree& stacks, const Config& config, std::span<uint32_t> bits) const {
  IDEFICS_CHECK(bits.size() >= vocabulary_->mask_words());
  for (const Config::Place& place : config.places) add_place(stacks, place, bits);
}

void MaskCache::add_place(StackTree& stacks, Config::Place place, std::span<uint32_t> bits) const {
  const auto entry = find(place.state);
  const auto take = [bits](int32_t id) { set_bit(bits, id); };
  const auto no_leave = [](uint32_t) { IDEFICS_CHECK(false); };  // real stacks have a known end
  if (stacks.depth(place.stack) + entry->depth > max_depth_) {
    // Here the entry allows calls that this stack has no room for.
    TreeWalk walk(*program_, *vocabulary_, stacks, max_depth_);
    walk.root().places = {place};
    walk.run(0, take, no_leave);
    return;
  }
  for (size_t i = 0; i < entry->bits.size(); ++i) bits[i] |= entry->bits[i];
  for (const int32_t id : entry->ids) set_bit(bits, id);
  if (place.stack == StackTree::kEmpty || entry->leaving.empty()) return;
  const size_t mark = stacks.size();
  TreeWalk walk(*program_, *vocabulary_, stacks, max_depth_);
  walk.recognizer().enter(stacks, {stacks.top(place.stack), stacks.rest(place.stack)}, walk.root());
  if (!walk.root().places.empty()) {
    for (const uint32_t node : entry->leaving) walk.run(node, take, no_leave);
  }
  stacks.truncate(mark);
}

std::shared_ptr<const StateTokens> MaskCache::find(StateId state) const {
  {
    const std::lock_guard lock(mutex_);
    if (const auto it = entries_.find(state); it != entries_.end()) return it->second;
  }
  auto entry = find_twin(state);
  const bool walked = entry == nullptr;
  if (walked) entry = std::make_shared<const StateTokens>(walk_state(state));
  const std::lock_guard lock(mutex_);
  if (entries_.size() >= kMaxEntries) entries_.clear();
  entries_[state] = entry;
  if (walked && !entry->bits.empty()) {
    if (recent_.size() >= kTwins) recent_.erase(recent_.begin());
    recent_.push_back(state);
  }
  return entry;
}

std::shared_ptr<const StateTokens> MaskCache::find_twin(StateId state) const {
  std::vector<std::pair<StateId, std::shared_ptr<const StateTokens>>> candidates;
  {
    const std::lock_guard lock(mutex_);
    for (const StateId other : recent_) {
      if (const auto it = entries_.find(other); it != entries_.end()) candidates.emplace_back(other, it->second);
    }
  }
  for (const auto& [other, entry] : candidates) {
    if (same_tokens(state, other)) return entry;
  }
  return nullptr;
}

// Whether no token can tell two states apart: side by side for as many bytes as the longest token has, they have the
// same bytes, calls and ends.
bool MaskCache::same_tokens(StateId a, StateId b) const {
  constexpr size_t kMaxPairs = 4096;  // beyond that a walk is cheaper
  std::set<std::pair<StateId, StateId>> seen;
  std::vector<std::pair<StateId, StateId>> now = {{a, b}}, next;
  const auto visit = [&](StateId x, StateId y) {
    if (x != y && seen.emplace(x, y).second) next.emplace_back(x, y);
  };
  const Program& p = *program_;
  for (uint32_t depth = 0; depth <= vocabulary_->longest() && !now.empty(); ++depth) {
    next.clear();
    for (size_t i = 0; i < now.size(); ++i) {
      const auto [x, y] = now[i];
      if (p.flags[x] != p.flags[y]) return false;
      for (uint32_t c = 0; c < p.num_classes; ++c) {
        const StateId nx = p.next[size_t{x} * p.num_classes + c], ny = p.next[size_t{y} * p.num_classes + c];
        if ((nx == Program::kNone) != (ny == Program::kNone)) return false;
        if (nx != Program::kNone) visit(nx, ny);
      }
      const uint32_t calls = p.first_call[x + 1] - p.first_call[x];
      if (calls != p.first_call[y + 1] - p.first_call[y]) return false;
      for (uint32_t k = 0; k < calls; ++k) {
        const Program::Call& cx = p.calls[p.first_call[x] + k];
        const Program::Call& cy = p.calls[p.first_call[y] + k];
        if (cx.start != cy.start || cx.tail != cy.tail) return false;
        visit(cx.to, cy.to);
      }
      if (seen.size() > kMaxPairs) return false;
    }
    std::swap(now, next);
  }
  return true;
}

StateTokens MaskCache::walk_state(StateId state) const {
  StateTokens result;
  StackTree stacks;
  TreeWalk walk(*program_, *vocabulary_, stacks, max_depth_);
  // Only bytes: what the state calls, and where it returns to, are places of their own.
  walk.root().places = {{state, StackTree::kUnknown}};
  walk.run(
      0, [&](int32_t id) { result.ids.push_back(id); }, [&](uint32_t node) { result.leaving.push_back(node); });
  result.depth = walk.recognizer().deepest();
  if (result.ids.size() > vocabulary_->mask_words()) {
    result.bits.assign(vocabulary_->mask_words(), 0);
    for (const int32_t id : result.ids) set_bit(result.bits, id);
    result.ids.clear();
  }
  result.ids.shrink_to_fit();
  return result;
}

}  // namespace idefics::grammar
