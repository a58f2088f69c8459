// What one step of the engine does, and what came of it: the only things that pass between policy (Scheduler) and
// mechanism (the engine).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "scheduling/key.h"
#include "scheduling/page_pool.h"

namespace idefics {

using SequenceId = int64_t;  // never used twice

// To be carried out in this order:
//   1. dropped  let go of these features (or leave them to a cache that may drop them at any time)
//   2. copies   one after the other, as listed
//   3. rows     through the text tower; logits where `samples`
//   4. tiles    through the vision tower; may come before 3, no row of this step needs them
struct StepPlan {
  // Consecutive rows of one sequence: its tokens [context, context + num_rows). When num_drafts > 0, the last
  // num_drafts rows are the first so many of the caller's draft tokens.
  struct Rows {
    SequenceId sequence;
    int32_t first_row, num_rows;
    int32_t context;     // tokens of the sequence that are in its pages already
    int32_t num_drafts;  // of num_rows
    bool samples;        // logits are wanted for the last 1 + num_drafts rows
    int32_t first_page, num_pages;
  };
  struct PageCopy {
    PageId from, to;
  };
  // Tile number `tile` of the sequence; other sequences may need the same key.
  struct Tile {
    TileKey key;
    SequenceId sequence;
    int32_t tile;
  };

  std::vector<Rows> rows;        // decoding sequences first, then chunks of prompts; within both the oldest first
  std::vector<PageId> page_ids;  // of all rows, see pages()
  std::vector<PageCopy> copies;
  std::vector<Tile> tiles;  // features wanted from the next step on, the most urgent first; no key twice
  std::vector<TileKey> dropped;
  std::vector<SequenceId> preempted;  // lost their pages and wait again; for logs and metrics
  int32_t num_rows = 0;

  // The pages of a sequence in order, enough for context + num_rows tokens.
  std::span<const PageId> pages(const Rows& r) const {
    return std::span(page_ids).subspan(static_cast<size_t>(r.first_page), static_cast<size_t>(r.num_pages));
  }
  // Nothing to run; there may be features to drop.
  bool empty() const { return rows.empty() && tiles.empty(); }
  void clear();
};

struct StepOutcome {
  struct Sampled {
    SequenceId sequence;
    int32_t num_tokens = 1;  // new tokens: the accepted drafts and one more, 1 to 1 + num_drafts
    bool finished = false;   // the sequence ends; must be true when its max_new_tokens are reached
    int32_t num_drafts = 0;  // draft tokens the caller has ready to follow the new tokens
    // Of the sequence from its beginning: keys of the full pages of its tokens, the new ones included. May be shorter:
    // pages without a key are not shared.
    std::span<const BlockKey> keys = {};
  };
  std::vector<Sampled> sampled;  // one for each sequence of the plan that samples, and for each of its forks
  std::vector<TileKey> encoded;  // those of plan.tiles whose features are there now
};

inline void StepPlan::clear() {
  rows.clear();
  page_ids.clear();
  copies.clear();
  tiles.clear();
  dropped.clear();
  preempted.clear();
  num_rows = 0;
}

}  // namespace idefics
