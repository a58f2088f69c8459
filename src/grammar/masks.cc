#include "grammar/masks.h"

#include <algorithm>

#include "base/check.h"

namespace idefics::grammar {

namespace {

void set_bit(std::span<uint32_t> bits, int32_t id) { bits[static_cast<size_t>(id) / 32] |= 1u << (id % 32); }

bool has_calls(const Program& program, StateId state) { return (program.flags[state] & Program::kCalls) != 0; }

std::span<const Program::Call> calls_of(const Program& program, StateId state) {
  const uint32_t first = program.first_call[state];
  return std::span(program.calls).subspan(first, program.first_call[state + 1] - first);
}

// Has bytes, is no end, and what it calls begins with bytes and is never empty: following its calls adds one place for
// each, and no more. So are the characters of strings, where the rare ones are a rule of their own.
bool is_plain(const Program& program, StateId state) {
  if ((program.flags[state] & ~Program::kCalls) != Program::kBytes) return false;
  const auto calls = calls_of(program, state);
  return std::all_of(calls.begin(), calls.end(), [&](const Program::Call& call) {
    return !call.tail && program.flags[call.start] == Program::kBytes;
  });
}

// From a state, by which bytes the text goes on in the same way again and again: for `length` bytes of `bytes`,
// whichever, only plain states are passed, and nothing that they call begins with one of these bytes.
struct Run {
  ByteSet bytes;
  uint32_t length = 0;
};

// Finds runs, each once. The content of a string is one: within a string without a limit it has no end, in one of 500
// characters it is as long as there are characters left, as far as that is looked at.
class Runs {
 public:
  static constexpr uint32_t kMaxLength = 32;  // of a run that is no loop; few parts of the tree are deeper

  Runs(const Program& program, uint32_t longest) : program_(program), longest_(longest) {}

  const Run& from(StateId state) {
    const auto [it, inserted] = runs_.try_emplace(state);
    if (inserted) find(state, it->second);
    return it->second;
  }

 private:
  std::span<const StateId> row(StateId state) const {
    return std::span(program_.next).subspan(size_t{state} * program_.num_classes, program_.num_classes);
  }

  // Where most classes of bytes lead.
  StateId main_target(StateId state) const {
    StateId best = Program::kNone;
    ptrdiff_t most = 0;
    const auto targets = row(state);
    for (size_t c = 0; c < targets.size(); ++c) {
      if (targets[c] == Program::kNone || targets[c] == best) continue;
      const auto count = std::count(targets.begin() + static_cast<ptrdiff_t>(c), targets.end(), targets[c]);
      if (count > most) {
        most = count;
        best = targets[c];
      }
      if (2 * most >= std::ssize(targets)) break;
    }
    return best;
  }

  bool calls_take(StateId state, const std::vector<uint32_t>& classes) const {
    const auto calls = calls_of(program_, state);
    return std::any_of(calls.begin(), calls.end(), [&](const Program::Call& call) {
      return std::any_of(classes.begin(), classes.end(),
                         [&](uint32_t c) { return row(call.start)[c] != Program::kNone; });
    });
  }

  void find(StateId state, Run& run) const {
    StateId to = main_target(state);
    if (to == Program::kNone) return;
    std::vector<uint32_t> classes;
    for (uint32_t c = 0; c < program_.num_classes; ++c) {
      if (row(state)[c] == to) classes.push_back(c);
    }
    for (size_t byte = 0; byte < 256; ++byte) {
      if (row(state)[program_.class_of[byte]] == to) run.bytes.add(static_cast<uint8_t>(byte));
    }
    for (StateId at = state; run.length < kMaxLength; at = to) {
      const auto targets = row(at);
      to = targets[classes[0]];
      const bool same = std::all_of(classes.begin(), classes.end(), [&](uint32_t c) { return targets[c] == to; });
      if (!same || to == Program::kNone || !is_plain(program_, to) || calls_take(at, classes)) return;
      if (has_calls(program_, to) != has_calls(program_, state)) return;
      run.length = to == at ? longest_ + kMaxLength : run.length + 1;
    }
  }

  const Program& program_;
  uint32_t longest_;
  std::unordered_map<StateId, Run> runs_;
};

// Walks the tree of tokens with a grammar: a configuration per level. Most of them are one plain state, with what it
// calls, for which a look into the table is enough.
class TreeWalk {
 public:
  TreeWalk(const Program& program, const TokenVocabulary& vocabulary, StackTree& stacks, uint32_t max_depth)
      : program_(program),
        vocabulary_(vocabulary),
        stacks_(stacks),
        recognizer_(program, max_depth),
        runs_(program, vocabulary.longest()),
        levels_(vocabulary.longest() + 1) {}

  Config& root() { return levels_[0].config; }
  Recognizer& recognizer() { return recognizer_; }

  // The nodes below `top`, whose configuration is root(). Calls take(ids) for tokens that stay in the grammar, and
  // leave(node) where the configuration is unknown.
  template <typename Take, typename Leave>
  void run(uint32_t top, Take&& take, Leave&& leave) {
    const auto nodes = vocabulary_.nodes();
    const size_t base = nodes[top].depth;
    levels_[0].mark = stacks_.size();
    simplify(levels_[0]);
    if (take_all_below(top, levels_[0], take)) return;
    for (uint32_t n = top + 1; n < nodes[top].end;) {
      const size_t depth = nodes[n].depth - base;
      const Level& parent = levels_[depth - 1];
      Level& level = levels_[depth];
      if (!step(parent, nodes[n].byte, level)) {
        n = nodes[n].end;
        continue;
      }
      if (const auto tokens = vocabulary_.tokens_at(n); !tokens.empty()) take(tokens);
      if (!level.simple && level.config.unknown && nodes[n].end > n + 1) leave(n);
      n = take_all_below(n, level, take) ? nodes[n].end : n + 1;
    }
    stacks_.truncate(levels_[0].mark);
  }

 private:
  struct Level {
    Config config;        // unless simple
    Config::Place place;  // if simple: the only one
    bool simple = false;
    size_t mark = 0;
  };

  // Whether the places are those of one plain state and its calls. The calls of a state that is asked about by itself
  // are missing, as those beyond the depth limit are.
  void simplify(Level& level) const {
    const Config& c = level.config;
    level.simple = false;
    if (c.places.empty() || c.complete || c.unknown || !is_plain(program_, c.places[0].state)) return;
    const Config::Place first = c.places[0];
    const auto calls = calls_of(program_, first.state);
    if (c.places.size() != 1 + calls.size()) return;
    for (size_t i = 0; i < calls.size(); ++i) {
      const Config::Place& called = c.places[i + 1];
      if (called.state != calls[i].start || called.stack <= StackTree::kUnknown ||
          stacks_.top(called.stack) != calls[i].to || stacks_.rest(called.stack) != first.stack) {
        return;
      }
    }
    level.simple = true;
    level.place = first;
  }

  // From one plain state to another, as a look into the table: what is called does not take the byte. A state with
  // calls comes only after one with calls, so that how deep they are is known already.
  bool step_simply(const Level& from, uint8_t byte, StateId next, Level& to) const {
    const StateId state = from.place.state;
    if (next == Program::kNone || !is_plain(program_, next)) return false;
    if (has_calls(program_, next) && !has_calls(program_, state)) return false;
    for (const Program::Call& call : calls_of(program_, state)) {
      if (program_.step(call.start, byte) != Program::kNone) return false;
    }
    to.place = {next, from.place.stack};
    to.simple = true;
    to.mark = from.mark;
    return true;
  }

  // False when no text goes on so.
  bool step(const Level& from, uint8_t byte, Level& to) {
    if (from.simple) {
      const StateId next = program_.step(from.place.state, byte);
      if (next == Program::kNone && !has_calls(program_, from.place.state)) return false;
      if (step_simply(from, byte, next, to)) return true;
    }
    stacks_.truncate(from.mark);
    if (from.simple) recognizer_.enter(stacks_, from.place, one_);
    recognizer_.step(stacks_, from.simple ? one_ : from.config, byte, to.config);
    if (to.config.dead()) return false;
    to.mark = stacks_.size();
    simplify(to);
    return true;
  }

  template <typename Take>
  bool take_all_below(uint32_t node, const Level& level, Take& take) {
    if (!level.simple) return false;
    const TokenVocabulary::Below* below = vocabulary_.below(node);
    if (below == nullptr) return false;
    const Run& run = runs_.from(level.place.state);
    if (below->levels > run.length || !below->bytes.is_subset_of(run.bytes)) return false;
    take(vocabulary_.tokens_below(node));
    return true;
  }

  const Program& program_;
  const TokenVocabulary& vocabulary_;
  StackTree& stacks_;
  Recognizer recognizer_;
  Runs runs_;
  Config one_;
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
  const auto take = [bits](std::span<const int32_t> ids) {
    for (const int32_t id : ids) set_bit(bits, id);
  };
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
  auto entry = std::make_shared<const StateTokens>(walk_state(state));
  const std::lock_guard lock(mutex_);
  if (entries_.size() >= kMaxEntries) entries_.clear();
  entries_[state] = entry;
  return entry;
}

StateTokens MaskCache::walk_state(StateId state) const {
  StateTokens result;
  StackTree stacks;
  TreeWalk walk(*program_, *vocabulary_, stacks, max_depth_);
  // Only bytes: what the state calls, and where it returns to, are places of their own.
  walk.root().places = {{state, StackTree::kUnknown}};
  walk.run(
      0, [&](std::span<const int32_t> ids) { result.ids.insert(result.ids.end(), ids.begin(), ids.end()); },
      [&](uint32_t node) { result.leaving.push_back(node); });
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
