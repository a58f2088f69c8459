// Which tiles the running sequences still need, and whether their features are there.
//
// A tile is known from its first user on. It is missing, then planned (the current step encodes it), then ready.
// When its last user has left it is handed out by take_unused() and forgotten.
//
// Invariant: every known tile has users, or is on the list that take_unused() empties.
// Threads: one owner.
#pragma once

#include <functional>
#include <unordered_map>
#include <vector>

#include "scheduling/key.h"

namespace idefics {

// Asked once when a tile gets its first user: are its features at hand (the caller's cache of features)? If so they
// must stay until the tile is dropped.
using FindFeatures = std::function<bool(const TileKey&)>;

class TileTable {
 public:
  explicit TileTable(FindFeatures find_features) : find_features_(std::move(find_features)) {}

  void add_user(const TileKey& key);
  void remove_user(const TileKey& key);  // REQUIRES: the tile has a user

  // REQUIRES for all: the tile is known.
  bool is_ready(const TileKey& key) const { return tiles_.at(key).state == State::kReady; }
  bool is_missing(const TileKey& key) const { return tiles_.at(key).state == State::kMissing; }
  void mark_planned(const TileKey& key);      // REQUIRES: missing
  void mark_ready(const TileKey& key);        // REQUIRES: planned
  void mark_not_encoded(const TileKey& key);  // planned -> missing; other states stay

  // Forgets the tiles without users and appends those whose features are there to `dropped`, in the order in which
  // their users left.
  void take_unused(std::vector<TileKey>& dropped);
  bool has_unused() const { return !unused_.empty(); }

  int32_t num_users(const TileKey& key) const;  // 0 for an unknown tile
  size_t size() const { return tiles_.size(); }

 private:
  enum class State { kMissing, kPlanned, kReady };
  struct Tile {
    State state;
    int32_t users = 0;
    bool listed = false;  // in unused_
  };

  FindFeatures find_features_;
  std::unordered_map<TileKey, Tile, KeyHash> tiles_;  // never iterated over
  std::vector<TileKey> unused_;                       // tiles that lost their last user, some of which found new ones
};

}  // namespace idefics
