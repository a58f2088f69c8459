#include "grammar/runs.h"

#include <algorithm>

namespace idefics::grammar {

Runs::Runs(const Program& program) : program_(program), ascii_(program.num_classes), index_(program.num_states(), 0) {
  for (size_t byte = 0; byte < 0x80; ++byte) ascii_[program.class_of[byte]].add(static_cast<uint8_t>(byte));
  for (size_t i = 0; i < Utf8Position::kCount; ++i) {
    for (size_t byte = 0x80; byte < 0x100; ++byte) {
      const Utf8Position next = Utf8Position::of_index(i).next(static_cast<uint8_t>(byte));
      const uint32_t c = program.class_of[byte];
      const bool known = std::any_of(steps_[i].begin(), steps_[i].end(), [&](const Step& s) {
        return s.byte_class == c && s.next.index() == next.index();
      });
      if (next.is_valid() && !known) steps_[i].push_back({c, next});
    }
  }
}

// Follows the links as far as they lead on by the same characters, and counts backwards.
const Run& Runs::from(StateId state) {
  if (const Run& run = link(state); run.length > 0 || run.to == Program::kNone) return run;
  chain_.assign(1, state);
  Run rest;  // what is known after the last one of the chain
  bool is_known = true;
  while (true) {
    const Run last = link(chain_.back());  // a copy: the next link may move it
    const Run& next = link(last.to);
    const bool goes_on = next.to != Program::kNone && last.ascii.is_subset_of(next.ascii) &&
                         (next.others || !last.others) && (last.by_call || !next.by_call || !last.others);
    if (!goes_on) {
      rest.stops = refuses(last.to, last);
      break;
    }
    if (last.to == chain_.back() || next.length > 0) {
      rest = next;
      if (next.length == 0) rest.length = kLongest;
      break;
    }
    is_known = chain_.size() <= 2 * kLongest;  // those at the beginning are long, of the others nothing is said
    if (!is_known) break;
    chain_.push_back(last.to);
  }
  for (size_t i = chain_.size(); i-- > 0;) {
    Run& run = link(chain_[i]);
    ++rest.length;
    rest.stops = rest.stops && is_only_reading(chain_[i], run) && rest.length < kLongest;
    rest.is_final = rest.is_final || (program_.flags[run.to] & Program::kFinal) != 0;
    rest.length = std::min(rest.length, kLongest);
    if (!is_known && rest.length < kLongest) continue;
    run.length = rest.length;
    run.stops = rest.stops;
    run.is_final = rest.is_final;
  }
  return link(state);
}

Run& Runs::link(StateId state) {
  if (index_[state] == 0) {
    runs_.push_back(find_link(state));
    index_[state] = static_cast<uint32_t>(runs_.size());
  }
  return runs_[index_[state] - 1];
}

// Where most characters of ASCII lead.
Run Runs::find_link(StateId state) const {
  const StateId* row = &program_.next[size_t{state} * program_.num_classes];
  Run best;
  for (uint32_t c = 0; c < program_.num_classes && best.width <= 64; ++c) {
    if (row[c] == Program::kNone || row[c] == best.to || ascii_[c].size() == 0) continue;
    Run run;
    run.to = row[c];
    for (uint32_t other = c; other < program_.num_classes; ++other) {
      if (row[other] == run.to) run.ascii.add(ascii_[other]);
    }
    run.width = static_cast<uint8_t>(run.ascii.size());
    if (run.width > best.width) best = run;
  }
  if (best.to == Program::kNone) return best;
  best.others = others_lead_to(state, best.to, {});
  if (!best.others) best.others = best.by_call = calls_take_others(state, best.to);
  return best;
}

// Whether each character beyond ASCII leads from `state` to `to`. `position` is that of `state`.
bool Runs::others_lead_to(StateId state, StateId to, Utf8Position position) const {
  const StateId* row = &program_.next[size_t{state} * program_.num_classes];
  const auto& steps = steps_[position.index()];
  return std::all_of(steps.begin(), steps.end(), [&](const Step& step) {
    const StateId next = row[step.byte_class];
    if (next == Program::kNone) return false;
    return step.next.at_boundary() ? next == to : others_lead_to(next, to, step.next);
  });
}

// The same by a rule that is called and ends after the character.
bool Runs::calls_take_others(StateId state, StateId to) const {
  for (uint32_t c = program_.first_call[state]; c < program_.first_call[state + 1]; ++c) {
    const Program::Call& call = program_.calls[c];
    if (call.to != to || call.tail) continue;
    StateId end = call.start;  // after one of these characters
    Utf8Position position;
    while (end != Program::kNone && (position.index() != 0 || end == call.start)) {
      const auto& step = steps_[position.index()].front();
      end = program_.next[size_t{end} * program_.num_classes + step.byte_class];
      position = step.next;
    }
    if (end == Program::kNone || program_.flags[end] != Program::kFinal) continue;  // with more it is another reading
    if (others_lead_to(call.start, end, {})) return true;
  }
  return false;
}

// Whether the characters of the link lead nowhere but where it says.
bool Runs::is_only_reading(StateId state, const Run& run) const {
  if (!program_.plain[state] || (run.by_call && !row_refuses(state, {}, true))) return false;
  size_t takers = 0;  // of the others
  for (uint32_t c = program_.first_call[state]; c < program_.first_call[state + 1]; ++c) {
    const StateId start = program_.calls[c].start;
    if (!row_refuses(start, run.ascii, false)) return false;
    takers += run.others && !row_refuses(start, {}, true);
  }
  return takers == (run.by_call ? 1 : 0);
}

// Whether none of the characters can follow.
bool Runs::refuses(StateId state, const Run& run) const {
  if (!row_refuses(state, run.ascii, run.others)) return false;
  if (!program_.plain[state] && (program_.flags[state] & Program::kCalls) != 0) return false;  // not looked at
  for (uint32_t c = program_.first_call[state]; c < program_.first_call[state + 1]; ++c) {
    if (!row_refuses(program_.calls[c].start, run.ascii, run.others)) return false;
  }
  return true;
}

bool Runs::row_refuses(StateId state, const AsciiSet& ascii, bool others) const {
  const StateId* row = &program_.next[size_t{state} * program_.num_classes];
  for (uint32_t c = 0; c < program_.num_classes; ++c) {
    if (row[c] != Program::kNone && ascii_[c].intersects(ascii)) return false;
  }
  const auto& leads = steps_[Utf8Position().index()];
  return !others || std::all_of(leads.begin(), leads.end(),
                                [row](const Step& step) { return row[step.byte_class] == Program::kNone; });
}

}  // namespace idefics::grammar
