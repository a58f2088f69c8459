#include "grammar/masks.h"

#include <algorithm>

#include "base/check.h"

namespace idefics::grammar {

namespace {

void set_bit(std::span<uint32_t> bits, int32_t id) { bits[static_cast<size_t>(id) / 32] |= 1u << (id % 32); }
void clear_bit(std::span<uint32_t> bits, int32_t id) { bits[static_cast<size_t>(id) / 32] &= ~(1u << (id % 32)); }

std::span<const Program::Call> calls_of(const Program& program, StateId state) {
  const uint32_t first = program.first_call[state];
  return std::span(program.calls).subspan(first, program.first_call[state + 1] - first);
}

bool has_calls(const Program& program, StateId state) { return (program.flags[state] & Program::kCalls) != 0; }
bool is_final(const Program& program, StateId state) { return (program.flags[state] & Program::kFinal) != 0; }

// Places of the order of the tree's tokens.
struct TokenRange {
  uint32_t first, end;
};

std::vector<StateId> states_of(const StackTree& stacks, std::span<const Config::Place> places) {
  std::vector<StateId> states;
  for (const Config::Place& place : places) {
    states.push_back(place.state);
    for (StackId s = place.stack; s != StackTree::kEmpty; s = stacks.rest(s)) states.push_back(stacks.top(s));
    states.push_back(Program::kNone);
  }
  return states;
}

// Walks the tree of tokens with a grammar: a configuration per level. Most of them are simple: one plain state with
// what it calls, for which a look into the table is enough.
class TreeWalk {
 public:
  TreeWalk(const Program& program, Runs& runs, const TokenVocabulary& vocabulary, StackTree& stacks, uint32_t max_depth)
      : program_(program),
        runs_(runs),
        vocabulary_(vocabulary),
        stacks_(stacks),
        recognizer_(program, max_depth),
        levels_(vocabulary.longest() + 1) {}

  Config& root() { return levels_[0].config; }
  Recognizer& recognizer() { return recognizer_; }

  // The nodes below `top`, whose configuration is root(). Calls take(range) for tokens that stay in the grammar, in
  // their order, and leave(node) where the configuration is unknown.
  template <typename Take, typename Leave>
  void run(uint32_t top, Take&& take, Leave&& leave) {
    const auto nodes = vocabulary_.nodes();
    const size_t base = nodes[top].depth;
    levels_[0].mark = stacks_.size();
    simplify(levels_[0]);
    find_run(levels_[0]);
    for (uint32_t n = top + 1; n < nodes[top].end;) {
      const TokenVocabulary::Node& node = nodes[n];
      const Level& parent = levels_[node.depth - base - 1];
      if (take_within(n, parent.run, take)) {
        n = node.end;
        continue;
      }
      Level& level = levels_[node.depth - base];
      if (!step(parent, node.byte, level)) {
        n = node.end;
        continue;
      }
      ++n;
      if (node.first_token != nodes[n].first_token) take(TokenRange{node.first_token, nodes[n].first_token});
      if (n == node.end) continue;
      if (may_leave(level)) leave(n - 1);
      find_run(level);
    }
    stacks_.truncate(levels_[0].mark);
  }

 private:
  // By what its children may go on without a look at them.
  struct LevelRun {
    AsciiSet ascii;
    uint16_t length = 0;
    bool others = false;
    bool stops = false;
  };
  struct Level {
    Config::Place place;  // if simple: the only one, but for what it calls
    bool simple = false;
    size_t mark = 0;
    LevelRun run;
    Config config;  // unless simple
  };

  // Whether the node and all below it are decided by the run of its parent.
  template <typename Take>
  bool take_within(uint32_t n, const LevelRun& run, Take& take) const {
    const TokenVocabulary::Node& node = vocabulary_.nodes()[n];
    if (!node.ascii.is_subset_of(run.ascii) || (node.others && !run.others)) return false;
    const TokenRange all{node.first_token, vocabulary_.nodes()[node.end].first_token};
    if (node.chars <= run.length) {
      take(all);
      return true;
    }
    if (!run.stops || node.chars == TokenVocabulary::kNotText) return false;
    const auto chars = vocabulary_.token_chars();
    const int longest = node.end_char - 1 + run.length;
    for (uint32_t i = all.first; i < all.end; ++i) {
      const uint32_t first = i;
      while (i < all.end && chars[i] <= longest) ++i;
      if (i > first) take(TokenRange{first, i});
    }
    return true;
  }

  // Where the end of the rule is the end of what is known, a state that may be the last one adds no place either.
  bool is_plain(Config::Place place) const {
    return program_.plain[place.state] && (place.stack <= StackTree::kUnknown || !is_final(program_, place.state));
  }

  // Whether the places are those of one plain state and its calls. The calls of a state that is asked about by itself
  // are missing, as those beyond the depth limit are.
  void simplify(Level& level) const {
    const Config& c = level.config;
    level.simple = false;
    if (c.places.empty() || !is_plain(c.places[0])) return;
    const Config::Place first = c.places[0];
    const bool final = is_final(program_, first.state);
    if (c.complete != (final && first.stack == StackTree::kEmpty)) return;
    if (c.unknown != (final && first.stack == StackTree::kUnknown)) return;
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

  bool may_leave(const Level& level) const {
    if (!level.simple) return level.config.unknown;
    return level.place.stack == StackTree::kUnknown && is_final(program_, level.place.state);
  }

  // Of several places any will do; that of the most characters does most. A call needs room on the stack, which a
  // simple level is known to have.
  void find_run(Level& level) {
    level.run = {};
    const size_t count = level.simple ? 1 : std::min<size_t>(level.config.places.size(), 4);
    int width = 0;
    for (size_t i = 0; i < count; ++i) {
      const Run& run = runs_.from(level.simple ? level.place.state : level.config.places[i].state);
      if (run.length == 0 || run.width <= width) continue;
      width = run.width;
      const bool stops = run.stops && level.simple && (!run.is_final || level.place.stack == StackTree::kEmpty);
      level.run = {run.ascii, run.length, run.others && (level.simple || !run.by_call), stops};
    }
  }

  // From one plain state to another, as a look into the table: what is called does not take the byte. A state with
  // calls comes only after one with calls, so that how deep they are is known already.
  bool step_simply(const Level& from, uint8_t byte, StateId next, Level& to) const {
    const StateId state = from.place.state;
    if (next == Program::kNone || !is_plain({next, from.place.stack})) return false;
    if (has_calls(program_, state)) {
      for (const Program::Call& call : calls_of(program_, state)) {
        if (program_.step(call.start, byte) != Program::kNone) return false;
      }
    } else if (has_calls(program_, next)) {
      return false;
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

  const Program& program_;
  Runs& runs_;
  const TokenVocabulary& vocabulary_;
  StackTree& stacks_;
  Recognizer recognizer_;
  Config one_;
  std::vector<Level> levels_;
};

// The tokens of `ranges`, which are in order: set one by one, or cleared of all if that is less work.
void fill(const TokenVocabulary& vocabulary, std::span<const TokenRange> ranges, StateTokens& result) {
  const auto tokens = vocabulary.tokens();
  size_t count = 0;
  for (const TokenRange& r : ranges) count += r.end - r.first;
  if (count <= vocabulary.mask_words()) {
    result.ids.reserve(count);
    for (const TokenRange& r : ranges) {
      result.ids.insert(result.ids.end(), tokens.begin() + r.first, tokens.begin() + r.end);
    }
  } else if (count <= tokens.size() / 2) {
    result.bits.assign(vocabulary.mask_words(), 0);
    for (const TokenRange& r : ranges) {
      for (uint32_t i = r.first; i < r.end; ++i) set_bit(result.bits, tokens[i]);
    }
  } else {
    result.bits.assign(vocabulary.all_bits().begin(), vocabulary.all_bits().end());
    uint32_t next = 0;
    for (const TokenRange& r : ranges) {
      for (; next < r.first; ++next) clear_bit(result.bits, tokens[next]);
      next = r.end;
    }
    for (; next < tokens.size(); ++next) clear_bit(result.bits, tokens[next]);
  }
}

}  // namespace

MaskCache::MaskCache(std::shared_ptr<const Program> program, std::shared_ptr<const TokenVocabulary> vocabulary,
                     uint32_t max_depth)
    : program_(std::move(program)), vocabulary_(std::move(vocabulary)), max_depth_(max_depth), runs_(*program_) {}

void MaskCache::add(StackTree& stacks, const Config& config, std::span<uint32_t> bits) const {
  IDEFICS_CHECK(bits.size() >= vocabulary_->mask_words());
  const std::lock_guard lock(mutex_);
  const std::vector<Config::Place> places = without_called(stacks, config);
  if (!is_dear(stacks, places)) {
    for (const Config::Place& place : places) add_place(stacks, place, bits);
    return;
  }
  const std::vector<StateId> key = states_of(stacks, places);
  auto it = configs_.find(key);
  if (it == configs_.end()) {
    std::vector<uint32_t> mask(vocabulary_->mask_words(), 0);
    for (const Config::Place& place : places) add_place(stacks, place, mask);
    if (configs_.size() >= kMaxConfigs) configs_.clear();
    it = configs_.emplace(key, std::move(mask)).first;
  }
  for (size_t i = 0; i < it->second.size(); ++i) bits[i] |= it->second[i];
}

// The places but for those that the first one calls: where it is plain, they are part of its entry.
std::vector<Config::Place> MaskCache::without_called(const StackTree& stacks, const Config& config) const {
  std::vector<Config::Place> places = config.places;
  if (places.size() < 2 || !program_->plain[places[0].state] || !has_room(stacks, places[0])) return places;
  const Config::Place first = places[0];
  std::erase_if(places, [&](const Config::Place& place) {
    if (place.stack <= StackTree::kUnknown || stacks.rest(place.stack) != first.stack) return false;
    return std::ranges::any_of(calls_of(*program_, first.state), [&](const Program::Call& call) {
      return call.start == place.state && call.to == stacks.top(place.stack);
    });
  });
  return places;
}

bool MaskCache::is_dear(const StackTree& stacks, std::span<const Config::Place> places) const {
  size_t leaving = 0, depth = 0;
  for (const Config::Place& place : places) {
    depth += stacks.depth(place.stack);
    leaving += find(place).leaving.size();
  }
  return leaving >= kManyLeaving && depth <= 1024;
}

// Otherwise the entry allows calls that this stack has no room for.
bool MaskCache::has_room(const StackTree& stacks, Config::Place place) const {
  return stacks.depth(place.stack) + find(place).depth <= max_depth_;
}

void MaskCache::add_place(StackTree& stacks, Config::Place place, std::span<uint32_t> bits) const {
  const auto take = [&](TokenRange range) {
    for (uint32_t i = range.first; i < range.end; ++i) set_bit(bits, vocabulary_->tokens()[i]);
  };
  const auto no_leave = [](uint32_t) { IDEFICS_CHECK(false); };  // real stacks have a known end
  if (!has_room(stacks, place)) {
    TreeWalk walk(*program_, runs_, *vocabulary_, stacks, max_depth_);
    walk.root().places = {place};
    walk.run(0, take, no_leave);
    return;
  }
  const StateTokens& entry = find(place);
  for (size_t i = 0; i < entry.bits.size(); ++i) bits[i] |= entry.bits[i];
  for (const int32_t id : entry.ids) set_bit(bits, id);
  if (entry.leaving.empty()) return;
  const size_t mark = stacks.size();
  TreeWalk walk(*program_, runs_, *vocabulary_, stacks, max_depth_);
  walk.recognizer().enter(stacks, {stacks.top(place.stack), stacks.rest(place.stack)}, walk.root());
  if (!walk.root().places.empty()) {
    for (const uint32_t node : entry.leaving) walk.run(node, take, no_leave);
  }
  stacks.truncate(mark);
}

const StateTokens& MaskCache::find(Config::Place place) const {
  const uint64_t key = uint64_t{place.state} * 2 + (place.stack == StackTree::kEmpty);
  if (const auto it = entries_.find(key); it != entries_.end()) return it->second;
  StateTokens entry = walk({place.state, place.stack == StackTree::kEmpty ? StackTree::kEmpty : StackTree::kUnknown});
  if (entries_.size() >= kMaxEntries) entries_.clear();
  return entries_[key] = std::move(entry);
}

StateTokens MaskCache::walk(Config::Place place) const {
  StateTokens result;
  StackTree stacks;
  TreeWalk walk(*program_, runs_, *vocabulary_, stacks, max_depth_);
  if (program_->plain[place.state]) {
    walk.recognizer().enter(stacks, place, walk.root());
  } else {
    // Only bytes: what the state calls, and where it returns to, are places of their own.
    walk.root().places = {place};
  }
  std::vector<TokenRange> ranges;
  walk.run(
      0,
      [&](TokenRange range) {
        if (ranges.empty() || ranges.back().end != range.first) {
          ranges.push_back(range);
        } else {
          ranges.back().end = range.end;
        }
      },
      [&](uint32_t node) { result.leaving.push_back(node); });
  result.depth = walk.recognizer().deepest();
  fill(*vocabulary_, ranges, result);
  return result;
}

}  // namespace idefics::grammar
