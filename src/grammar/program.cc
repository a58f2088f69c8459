#include "grammar/program.h"

#include <fmt/format.h>

#include <algorithm>
#include <bitset>

#include "base/check.h"

namespace idefics::grammar {

namespace {

class Linker {
 public:
  Linker(const Grammar& grammar, Budget& budget) : grammar_(grammar), budget_(budget) {}

  Program run() {
    for (const Rule& rule : grammar_.rules) rules_.push_back(determinize(rule.body, budget_));
    mark_productive();
    if (!productive_rule(grammar_.start)) {
      fail(fmt::format("{}: no text can satisfy it; remove what contradicts itself",
                       grammar_.rules[grammar_.start].name));
    }
    number_states();
    refuse_left_recursion();
    make_classes();
    fill();
    return std::move(program_);
  }

 private:
  bool productive_rule(RuleId rule) const { return !productive_[rule].empty() && productive_[rule][0]; }

  bool productive_state(RuleId rule, const Dfa::State& state) const {
    if (state.final) return true;
    for (const Dfa::Edge& e : state.edges) {
      if (productive_[rule][e.to]) return true;
    }
    for (const Dfa::Call& c : state.calls) {
      if (productive_[rule][c.to] && productive_rule(c.rule)) return true;
    }
    return false;
  }

  // A state is productive when a complete text of its rule can follow. Rules are visited again when a rule that they
  // call became productive.
  void mark_productive() {
    std::vector<std::vector<RuleId>> callers(rules_.size());
    productive_.resize(rules_.size());
    std::vector<RuleId> todo;
    for (RuleId r = 0; r < rules_.size(); ++r) {
      productive_[r].assign(rules_[r].states.size(), false);
      for (const Dfa::State& state : rules_[r].states) {
        for (const Dfa::Call& c : state.calls) callers[c.rule].push_back(r);
      }
      todo.push_back(r);
    }
    for (auto& list : callers) {
      std::sort(list.begin(), list.end());
      list.erase(std::unique(list.begin(), list.end()), list.end());
    }
    while (!todo.empty()) {
      const RuleId r = todo.back();
      todo.pop_back();
      budget_.check_time();
      const bool before = productive_rule(r);
      mark_productive_states(r);
      if (!before && productive_rule(r)) todo.insert(todo.end(), callers[r].begin(), callers[r].end());
    }
  }

  void mark_productive_states(RuleId r) {
    const auto& states = rules_[r].states;
    std::vector<std::vector<StateId>> sources(states.size());
    std::vector<StateId> todo;
    for (StateId s = 0; s < states.size(); ++s) {
      for (const Dfa::Edge& e : states[s].edges) sources[e.to].push_back(s);
      for (const Dfa::Call& c : states[s].calls) sources[c.to].push_back(s);
      if (productive_[r][s] || states[s].final) todo.push_back(s);
    }
    for (const StateId s : todo) productive_[r][s] = true;
    while (!todo.empty()) {
      const StateId s = todo.back();
      todo.pop_back();
      for (const StateId from : sources[s]) {
        if (productive_[r][from] || !productive_state(r, states[from])) continue;
        productive_[r][from] = true;
        todo.push_back(from);
      }
    }
  }

  // Numbers for the states that are kept: productive, and reachable from the start.
  void number_states() {
    numbers_.resize(rules_.size());
    for (RuleId r = 0; r < rules_.size(); ++r) numbers_[r].assign(rules_[r].states.size(), Program::kNone);
    visit(grammar_.start, 0);
    for (size_t i = 0; i < kept_.size(); ++i) {
      const auto [r, s] = kept_[i];
      const Dfa::State& state = rules_[r].states[s];
      for (const Dfa::Edge& e : state.edges) visit(r, e.to);
      for (const Dfa::Call& c : state.calls) {
        if (!keeps(r, c)) continue;
        visit(c.rule, 0);
        visit(r, c.to);
      }
    }
  }

  bool keeps(RuleId r, const Dfa::Call& c) const { return productive_[r][c.to] && productive_rule(c.rule); }

  void visit(RuleId r, StateId s) {
    if (!productive_[r][s] || numbers_[r][s] != Program::kNone) return;
    numbers_[r][s] = static_cast<StateId>(kept_.size());
    kept_.emplace_back(r, s);
  }

  // A rule that calls itself before any byte would be called without end.
  void refuse_left_recursion() {
    std::vector<bool> nullable(rules_.size(), false);
    for (bool changed = true; changed;) {
      changed = false;
      budget_.check_time();
      for (RuleId r = 0; r < rules_.size(); ++r) {
        if (!nullable[r] && productive_rule(r) && reaches_end(r, nullable)) nullable[r] = changed = true;
      }
    }
    std::vector<std::vector<RuleId>> first(rules_.size());
    for (RuleId r = 0; r < rules_.size(); ++r) {
      if (productive_rule(r)) first[r] = first_calls(r, nullable);
    }
    refuse_cycles(first);
  }

  // The states of a rule that are reached from its start without a byte.
  std::vector<StateId> empty_closure(RuleId r, const std::vector<bool>& nullable) const {
    std::vector<StateId> reached = {0};
    std::vector<bool> seen(rules_[r].states.size(), false);
    seen[0] = true;
    for (size_t i = 0; i < reached.size(); ++i) {
      for (const Dfa::Call& c : rules_[r].states[reached[i]].calls) {
        if (!keeps(r, c) || !nullable[c.rule] || seen[c.to]) continue;
        seen[c.to] = true;
        reached.push_back(c.to);
      }
    }
    return reached;
  }

  bool reaches_end(RuleId r, const std::vector<bool>& nullable) const {
    const auto reached = empty_closure(r, nullable);
    return std::any_of(reached.begin(), reached.end(), [&](StateId s) { return rules_[r].states[s].final; });
  }

  std::vector<RuleId> first_calls(RuleId r, const std::vector<bool>& nullable) const {
    std::vector<RuleId> result;
    for (const StateId s : empty_closure(r, nullable)) {
      for (const Dfa::Call& c : rules_[r].states[s].calls) {
        if (keeps(r, c)) result.push_back(c.rule);
      }
    }
    return result;
  }

  void refuse_cycles(const std::vector<std::vector<RuleId>>& first) const {
    std::vector<size_t> incoming(first.size(), 0);
    for (const auto& list : first) {
      for (const RuleId r : list) ++incoming[r];
    }
    std::vector<RuleId> done;
    for (RuleId r = 0; r < first.size(); ++r) {
      if (incoming[r] == 0) done.push_back(r);
    }
    for (size_t i = 0; i < done.size(); ++i) {
      for (const RuleId r : first[done[i]]) {
        if (--incoming[r] == 0) done.push_back(r);
      }
    }
    if (done.size() == first.size()) return;
    const auto it = std::find_if(incoming.begin(), incoming.end(), [](size_t n) { return n != 0; });
    fail(fmt::format("{}: calls itself before any text (left recursion); put something in front of the call",
                     grammar_.rules[static_cast<size_t>(it - incoming.begin())].name));
  }

  // Two bytes are of one class when no edge begins or ends between them.
  void make_classes() {
    std::bitset<257> cuts;
    for (const auto& [r, s] : kept_) {
      for (const Dfa::Edge& e : rules_[r].states[s].edges) {
        cuts.set(e.low);
        cuts.set(size_t{e.high} + 1);
      }
    }
    uint32_t current = 0;
    for (size_t byte = 0; byte < 256; ++byte) {
      if (byte > 0 && cuts.test(byte)) ++current;
      program_.class_of[byte] = static_cast<uint8_t>(current);
    }
    program_.num_classes = current + 1;
  }

  void fill() {
    const size_t cells = kept_.size() * program_.num_classes;  // both are small: Limits::states and 256 at most
    if (cells > budget_.limits().table_cells) {
      fail(fmt::format("grammar: its table needs {} cells, at most {} are supported; make it simpler", cells,
                       budget_.limits().table_cells));
    }
    program_.next.assign(cells, Program::kNone);
    program_.flags.assign(kept_.size(), 0);
    for (size_t i = 0; i < kept_.size(); ++i) fill_state(i);
    program_.first_call.push_back(static_cast<uint32_t>(program_.calls.size()));
    for (Program::Call& c : program_.calls) c.tail = program_.flags[c.to] == Program::kFinal;
    for (size_t i = 0; i < kept_.size(); ++i) program_.plain.push_back(is_plain(i));
    program_.start = numbers_[grammar_.start][0];
  }

  void fill_state(size_t i) {
    const auto [r, s] = kept_[i];
    const Dfa::State& state = rules_[r].states[s];
    uint8_t flags = state.final ? Program::kFinal : 0;
    for (const Dfa::Edge& e : state.edges) {
      if (!productive_[r][e.to]) continue;
      flags |= Program::kBytes;
      for (uint32_t c = program_.class_of[e.low]; c <= program_.class_of[e.high]; ++c) {
        program_.next[i * program_.num_classes + c] = numbers_[r][e.to];
      }
    }
    program_.first_call.push_back(static_cast<uint32_t>(program_.calls.size()));
    for (const Dfa::Call& c : state.calls) {
      if (!keeps(r, c)) continue;
      flags |= Program::kCalls;
      program_.calls.push_back({numbers_[c.rule][0], numbers_[r][c.to], false});
    }
    program_.flags[i] = flags;
  }

  bool is_plain(size_t i) const {
    if ((program_.flags[i] & Program::kBytes) == 0) return false;
    return std::all_of(
        program_.calls.begin() + program_.first_call[i], program_.calls.begin() + program_.first_call[i + 1],
        [this](const Program::Call& c) { return !c.tail && program_.flags[c.start] == Program::kBytes; });
  }

  const Grammar& grammar_;
  Budget& budget_;
  Program program_;
  std::vector<Dfa> rules_;
  std::vector<std::vector<bool>> productive_;     // by rule and state
  std::vector<std::vector<StateId>> numbers_;     // by rule and state: its number in the program
  std::vector<std::pair<RuleId, StateId>> kept_;  // by number
};

}  // namespace

Program link(const Grammar& grammar, Budget& budget) { return Linker(grammar, budget).run(); }

}  // namespace idefics::grammar
