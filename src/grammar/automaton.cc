#include "grammar/automaton.h"

#include <algorithm>
#include <map>
#include <unordered_map>

#include "base/check.h"

namespace idefics::grammar {

namespace {

constexpr StateId kDead = ~StateId{0};

// ---- Expression to nondeterministic automaton (Thompson's construction) --------------------------------------------

struct Nfa {
  struct Edge {
    uint8_t low, high;
    StateId to;
  };
  struct State {
    std::vector<StateId> free;  // without a byte
    std::vector<Edge> edges;
    std::vector<Dfa::Call> calls;
  };
  std::vector<State> states;
};

class NfaBuilder {
 public:
  explicit NfaBuilder(Budget& budget) : budget_(budget) {}

  // Start 0, accepting state 1.
  Nfa build(const Expr& expression) {
    const StateId start = add();
    const StateId end = add();
    connect(*expression, start, end, 0);
    return std::move(nfa_);
  }

 private:
  StateId add() {
    budget_.take_states(1);
    nfa_.states.emplace_back();
    return static_cast<StateId>(nfa_.states.size() - 1);
  }

  // Makes the texts of `e` lead from `from` to `to`. Nothing else may lead into `from` from inside of `e` later on, or
  // out of `to` back: parts that repeat get states of their own.
  void connect(const Expression& e, StateId from, StateId to, int depth) {
    budget_.check_nesting(depth / 4, "grammar");  // one level of the source makes up to four of the expression
    switch (e.kind) {
      case Expression::Kind::kNothing: return;
      case Expression::Kind::kText: return connect_text(e.text, from, to);
      case Expression::Kind::kBytes: return connect_bytes(e.bytes, from, to);
      case Expression::Kind::kSequence: return connect_sequence(e, from, to, depth);
      case Expression::Kind::kChoice:
        for (const Expr& part : e.parts) {
          const StateId begin = add();
          nfa_.states[from].free.push_back(begin);
          connect(*part, begin, to, depth + 1);
        }
        return;
      case Expression::Kind::kRepeat: return connect_repeat(e, from, to, depth);
      case Expression::Kind::kCall: nfa_.states[from].calls.push_back({e.rule, to}); return;
      case Expression::Kind::kDfa: return connect_dfa(*e.dfa, from, to);
      case Expression::Kind::kGraph: return connect_graph(e, from, to, depth);
    }
  }

  void connect_text(std::string_view text, StateId from, StateId to) {
    for (size_t i = 0; i < text.size(); ++i) {
      const auto byte = static_cast<uint8_t>(text[i]);
      const StateId next = i + 1 == text.size() ? to : add();
      nfa_.states[from].edges.push_back({byte, byte, next});
      from = next;
    }
    if (text.empty()) nfa_.states[from].free.push_back(to);
  }

  void connect_bytes(const std::bitset<256>& set, StateId from, StateId to) {
    for (size_t low = 0; low < 256; ++low) {
      if (!set.test(low)) continue;
      size_t high = low;
      while (high + 1 < 256 && set.test(high + 1)) ++high;
      nfa_.states[from].edges.push_back({static_cast<uint8_t>(low), static_cast<uint8_t>(high), to});
      low = high;
    }
  }

  void connect_sequence(const Expression& e, StateId from, StateId to, int depth) {
    for (const Expr& part : e.parts) {
      const StateId next = add();
      connect(*part, from, next, depth + 1);
      from = next;
    }
    nfa_.states[from].free.push_back(to);
  }

  void connect_repeat(const Expression& e, StateId from, StateId to, int depth) {
    const Expression& part = *e.parts[0];
    for (int i = 0; i < e.min; ++i) {
      const StateId next = add();
      connect(part, from, next, depth + 1);
      from = next;
    }
    if (e.max == Expression::kUnbounded) {
      const StateId loop = add();
      nfa_.states[from].free.push_back(loop);
      connect(part, loop, loop, depth + 1);
      nfa_.states[loop].free.push_back(to);
      return;
    }
    for (int i = e.min; i < e.max; ++i) {
      nfa_.states[from].free.push_back(to);
      const StateId next = add();
      connect(part, from, next, depth + 1);
      from = next;
    }
    nfa_.states[from].free.push_back(to);
  }

  void connect_dfa(const Dfa& dfa, StateId from, StateId to) {
    if (dfa.states.empty()) return;
    const auto base = static_cast<StateId>(nfa_.states.size());
    for (size_t i = 0; i < dfa.states.size(); ++i) add();
    nfa_.states[from].free.push_back(base);
    for (size_t i = 0; i < dfa.states.size(); ++i) {
      Nfa::State& state = nfa_.states[base + i];
      for (const Dfa::Edge& edge : dfa.states[i].edges) state.edges.push_back({edge.low, edge.high, base + edge.to});
      for (const Dfa::Call& c : dfa.states[i].calls) state.calls.push_back({c.rule, base + c.to});
      if (dfa.states[i].final) state.free.push_back(to);
    }
  }

  void connect_graph(const Expression& e, StateId from, StateId to, int depth) {
    uint32_t num_nodes = 2;
    for (const GraphEdge& edge : e.edges) num_nodes = std::max({num_nodes, edge.from + 1, edge.to + 1});
    const auto base = static_cast<StateId>(nfa_.states.size());
    for (uint32_t i = 0; i < num_nodes; ++i) add();
    nfa_.states[from].free.push_back(base);
    nfa_.states[base + 1].free.push_back(to);
    for (const GraphEdge& edge : e.edges) {
      const StateId begin = add();
      nfa_.states[base + edge.from].free.push_back(begin);
      connect(*edge.label, begin, base + edge.to, depth + 1);
    }
  }

  Budget& budget_;
  Nfa nfa_;
};

// ---- Nondeterministic to deterministic (subset construction)
// ---------------------------------------------------------

struct SetHash {
  size_t operator()(const std::vector<StateId>& set) const {
    uint64_t hash = 0xcbf29ce484222325u;
    for (const StateId state : set) hash = (hash ^ state) * 0x100000001b3u;
    return static_cast<size_t>(hash);
  }
};

class SubsetConstruction {
 public:
  SubsetConstruction(const Nfa& nfa, Budget& budget) : nfa_(nfa), budget_(budget), seen_(nfa.states.size(), 0) {}

  Dfa run() {
    intern({0});
    for (StateId i = 0; i < sets_.size(); ++i) {
      budget_.check_time();
      expand(i);
    }
    return std::move(dfa_);
  }

 private:
  // The set of states that `seeds` reach without a byte; only those that matter: with edges, calls, or accepting.
  std::vector<StateId> closure(const std::vector<StateId>& seeds) {
    ++round_;
    std::vector<StateId> todo, result;
    const auto visit = [&](StateId s) {
      if (seen_[s] != round_) todo.push_back(s);
      seen_[s] = round_;
    };
    for (const StateId s : seeds) visit(s);
    while (!todo.empty()) {
      const StateId s = todo.back();
      todo.pop_back();
      const Nfa::State& state = nfa_.states[s];
      if (s == 1 || !state.edges.empty() || !state.calls.empty()) result.push_back(s);
      for (const StateId next : state.free) visit(next);
    }
    std::sort(result.begin(), result.end());
    return result;
  }

  StateId intern(const std::vector<StateId>& seeds) {
    std::vector<StateId> set = closure(seeds);
    const auto [it, inserted] = ids_.try_emplace(std::move(set), static_cast<StateId>(sets_.size()));
    if (inserted) {
      // Sets of many states are as dear as many states.
      budget_.take_states(1 + it->first.size() / 16);
      sets_.push_back(&it->first);
      dfa_.states.emplace_back();
      dfa_.states.back().final = std::binary_search(it->first.begin(), it->first.end(), StateId{1});
    }
    return it->second;
  }

  void expand(StateId id) {
    std::map<RuleId, std::vector<StateId>> calls;
    std::vector<Nfa::Edge> edges;
    std::bitset<257> cuts;  // where the set of edges changes
    for (const StateId s : *sets_[id]) {
      for (const Dfa::Call& c : nfa_.states[s].calls) calls[c.rule].push_back(c.to);
      for (const Nfa::Edge& e : nfa_.states[s].edges) {
        edges.push_back(e);
        cuts.set(e.low);
        cuts.set(size_t{e.high} + 1);
      }
    }
    for (const auto& [rule, to] : calls) {
      const StateId target = intern(to);
      dfa_.states[id].calls.push_back({rule, target});
    }
    std::sort(edges.begin(), edges.end(), [](const Nfa::Edge& a, const Nfa::Edge& b) { return a.low < b.low; });
    std::vector<Nfa::Edge> active;
    std::vector<StateId> targets;
    size_t next_edge = 0;
    for (size_t low = 0; low < 256; ++low) {
      if (!cuts.test(low)) continue;
      size_t high = low;
      while (!cuts.test(high + 1) && high + 1 < 256) ++high;
      while (next_edge < edges.size() && edges[next_edge].low <= low) active.push_back(edges[next_edge++]);
      std::erase_if(active, [low](const Nfa::Edge& e) { return e.high < low; });
      if (!active.empty()) {
        targets.clear();
        for (const Nfa::Edge& e : active) targets.push_back(e.to);
        add_edge(id, static_cast<uint8_t>(low), static_cast<uint8_t>(high), intern(targets));
      }
      low = high;
    }
  }

  void add_edge(StateId id, uint8_t low, uint8_t high, StateId to) {
    auto& edges = dfa_.states[id].edges;
    if (!edges.empty() && edges.back().to == to && edges.back().high + 1 == low) {
      edges.back().high = high;
    } else {
      edges.push_back({low, high, to});
    }
  }

  const Nfa& nfa_;
  Budget& budget_;
  Dfa dfa_;
  std::unordered_map<std::vector<StateId>, StateId, SetHash> ids_;  // its keys do not move
  std::vector<const std::vector<StateId>*> sets_;
  std::vector<uint32_t> seen_;
  uint32_t round_ = 0;
};

// ---- Products
// --------------------------------------------------------------------------------------------------------

// Runs two automata side by side. With `subtract`, the second one may be dead, and must not accept.
Dfa product(const Dfa& a, const Dfa& b, bool subtract, Budget& budget) {
  if (a.states.empty()) return {};
  if (b.states.empty()) return subtract ? a : Dfa{};
  Dfa result;
  std::map<std::pair<StateId, StateId>, StateId> ids;
  std::vector<std::pair<StateId, StateId>> pairs;
  const auto intern = [&](StateId x, StateId y) {
    const auto [it, inserted] = ids.try_emplace({x, y}, static_cast<StateId>(pairs.size()));
    if (inserted) {
      budget.take_states(1);
      const bool in_b = y != kDead && b.states[y].final;
      pairs.emplace_back(x, y);
      result.states.emplace_back();
      result.states.back().final = a.states[x].final && in_b != subtract;
    }
    return it->second;
  };
  intern(0, 0);
  for (StateId i = 0; i < pairs.size(); ++i) {
    const auto [x, y] = pairs[i];
    for (const Dfa::Edge& edge : a.states[x].edges) {
      for (int byte = edge.low; byte <= edge.high; ++byte) {
        const Dfa::Edge* other = y == kDead ? nullptr : b.find(y, static_cast<uint8_t>(byte));
        if (other == nullptr && !subtract) continue;
        const int last = other != nullptr ? std::min(edge.high, other->high) : byte;
        const StateId to = intern(edge.to, other == nullptr ? kDead : other->to);
        result.states[i].edges.push_back({static_cast<uint8_t>(byte), static_cast<uint8_t>(last), to});
        byte = last;
      }
    }
  }
  return result;
}

}  // namespace

const Dfa::Edge* Dfa::find(StateId state, uint8_t byte) const {
  const auto& edges = states[state].edges;
  const auto it =
      std::upper_bound(edges.begin(), edges.end(), byte, [](uint8_t value, const Edge& e) { return value < e.low; });
  if (it == edges.begin() || std::prev(it)->high < byte) return nullptr;
  return &*std::prev(it);
}

bool Dfa::accepts(std::string_view text) const {
  if (states.empty()) return false;
  StateId state = 0;
  for (const char c : text) {
    const Edge* edge = find(state, static_cast<uint8_t>(c));
    if (edge == nullptr) return false;
    state = edge->to;
  }
  return states[state].final;
}

Dfa determinize(const Expr& expression, Budget& budget) {
  const Nfa nfa = NfaBuilder(budget).build(expression);
  return SubsetConstruction(nfa, budget).run();
}

Dfa intersection(const Dfa& a, const Dfa& b, Budget& budget) { return product(a, b, false, budget); }
Dfa difference(const Dfa& a, const Dfa& b, Budget& budget) { return product(a, b, true, budget); }

}  // namespace idefics::grammar
