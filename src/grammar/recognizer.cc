#include "grammar/recognizer.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/check.h"

namespace idefics::grammar {

StackTree::StackTree() : newest_(kBuckets, kEmpty) {
  nodes_.push_back({Program::kNone, kEmpty, 0, kEmpty});
  nodes_.push_back({Program::kNone, kEmpty, 0, kEmpty});
}

StackId StackTree::push(StateId state, StackId rest) {
  StackId& head = newest_[bucket(state, rest)];
  for (StackId id = head; id != kEmpty; id = nodes_[id].older) {
    if (nodes_[id].top == state && nodes_[id].rest == rest) return id;
  }
  if (nodes_.size() >= kMaxNodes) fail("grammar: the text needs too many different stacks; make the grammar simpler");
  nodes_.push_back({state, rest, nodes_[rest].depth + 1, head});
  head = static_cast<StackId>(nodes_.size() - 1);
  return head;
}

void StackTree::truncate(size_t size) {
  IDEFICS_CHECK(size >= 2 && size <= nodes_.size());
  while (nodes_.size() > size) {
    const Node& node = nodes_.back();
    newest_[bucket(node.top, node.rest)] = node.older;  // the last node is the newest of its bucket
    nodes_.pop_back();
  }
}

void Recognizer::add(Config::Place place) {
  if (std::find(seen_.begin(), seen_.end(), place) != seen_.end()) return;
  if (seen_.size() >= kMaxPlaces) {
    fail(fmt::format("grammar: the text has more than {} readings at once; make the grammar less ambiguous",
                     kMaxPlaces));
  }
  seen_.push_back(place);
}

void Recognizer::enter(StackTree& stacks, Config::Place place, Config& out) {
  seen_.clear();
  seen_.push_back(place);
  close(stacks, out);
}

void Recognizer::step(StackTree& stacks, const Config& from, uint8_t byte, Config& out) {
  out.places.clear();
  out.complete = out.unknown = false;
  seen_.clear();
  for (const Config::Place& place : from.places) {
    const StateId next = program_->step(place.state, byte);
    if (next == Program::kNone) continue;
    if (from.places.size() == 1 && program_->flags[next] == Program::kBytes) {
      out.places.push_back({next, place.stack});
      return;
    }
    add({next, place.stack});
  }
  if (!seen_.empty()) close(stacks, out);
}

// Follows calls and returns, which take no byte, from the places in seen_.
void Recognizer::close(StackTree& stacks, Config& out) {
  out.places.clear();
  out.complete = out.unknown = false;
  for (size_t i = 0; i < seen_.size(); ++i) {
    const Config::Place place = seen_[i];
    const uint8_t flags = program_->flags[place.state];
    if (flags & Program::kBytes) out.places.push_back(place);
    if (flags & Program::kFinal) {
      if (place.stack == StackTree::kEmpty) {
        out.complete = true;
      } else if (place.stack == StackTree::kUnknown) {
        out.unknown = true;
      } else {
        add({stacks.top(place.stack), stacks.rest(place.stack)});
      }
    }
    if (!(flags & Program::kCalls)) continue;
    for (uint32_t c = program_->first_call[place.state]; c < program_->first_call[place.state + 1]; ++c) {
      const Program::Call& call = program_->calls[c];
      if (call.tail) {
        add({call.start, place.stack});
        continue;
      }
      deepest_ = std::max(deepest_, stacks.depth(place.stack) + 1);
      if (stacks.depth(place.stack) < max_depth_) add({call.start, stacks.push(call.to, place.stack)});
    }
  }
}

}  // namespace idefics::grammar
