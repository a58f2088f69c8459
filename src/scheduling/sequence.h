// A sequence: what the caller submits, and what the scheduler keeps about it.
#pragma once

#include <compare>
#include <optional>
#include <vector>

#include "scheduling/step_plan.h"

namespace idefics {

// The tokens [first, first + tile_tokens) of a prompt need the features of this tile.
struct SequenceTile {
  int32_t first;
  TileKey key;
};

struct SequenceRequest {
  int32_t num_prompt_tokens = 0;    // at least 1
  int32_t max_new_tokens = 0;       // at least 1; more than fits is cut to what fits
  std::vector<SequenceTile> tiles;  // in the order of the tokens, disjoint, inside the prompt
  std::vector<BlockKey> keys;       // of the full pages of the prompt; fewer or none: the rest is not shared
  // The place in the order of age, for callers that do not submit in order; all sequences of a scheduler have one or
  // none has. Not set: behind all that were submitted before.
  std::optional<int64_t> arrival = std::nullopt;
};

// Invariants
//   1. A waiting sequence has no page, and nothing of it is computed.
//   2. A running one has pages for its computed tokens, and for the rows of the step that is under way.
//   3. num_computed < num_known: the last known token is always still to be computed.
struct Sequence {
  enum class State { kWaiting, kPrefill, kDecode };

  // Oldest first: requests in order of arrival, a fork right behind the sequence it was made from.
  struct Age {
    int64_t arrival;
    SequenceId id;
    auto operator<=>(const Age&) const = default;
  };

  bool is_running() const { return state != State::kWaiting; }

  Age age;
  int32_t max_tokens;  // of prompt and answer
  std::vector<SequenceTile> tiles;
  std::vector<BlockKey> keys;

  State state = State::kWaiting;
  int32_t num_known = 0;      // prompt and tokens sampled so far
  int32_t num_computed = 0;   // of these, in the pages
  int32_t num_published = 0;  // pages that were offered to the prefix cache
  int32_t next_tile = 0;      // tiles before this one are no longer needed
  int32_t num_drafts = 0;     // the caller has ready
  std::vector<PageId> pages;
  bool tiles_on_hold = false;  // the caller cannot encode its tiles yet

  // Its part in the step that is under way.
  int32_t planned_rows = 0, planned_drafts = 0;
  bool samples = false;
  const StepOutcome::Sampled* sampled = nullptr;  // during commit
};

}  // namespace idefics
