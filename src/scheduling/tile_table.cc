#include "scheduling/tile_table.h"

#include "base/check.h"

namespace idefics {

void TileTable::add_user(const TileKey& key) {
  const auto [it, is_new] = tiles_.try_emplace(key);
  if (is_new) it->second.state = find_features_ && find_features_(key) ? State::kReady : State::kMissing;
  ++it->second.users;
}

void TileTable::remove_user(const TileKey& key) {
  Tile& tile = tiles_.at(key);
  IDEFICS_CHECK(tile.users > 0);
  if (--tile.users > 0 || tile.listed) return;
  tile.listed = true;
  unused_.push_back(key);
}

void TileTable::mark_planned(const TileKey& key) {
  Tile& tile = tiles_.at(key);
  IDEFICS_CHECK(tile.state == State::kMissing);
  tile.state = State::kPlanned;
}

void TileTable::mark_ready(const TileKey& key) {
  const auto it = tiles_.find(key);
  IDEFICS_CHECK(it != tiles_.end() && it->second.state == State::kPlanned);
  it->second.state = State::kReady;
}

void TileTable::mark_not_encoded(const TileKey& key) {
  Tile& tile = tiles_.at(key);
  if (tile.state == State::kPlanned) tile.state = State::kMissing;
}

void TileTable::take_unused(std::vector<TileKey>& dropped) {
  for (const TileKey& key : unused_) {
    const auto it = tiles_.find(key);
    it->second.listed = false;
    if (it->second.users > 0) continue;
    IDEFICS_CHECK(it->second.state != State::kPlanned);
    if (it->second.state == State::kReady) dropped.push_back(key);
    tiles_.erase(it);
  }
  unused_.clear();
}

int32_t TileTable::num_users(const TileKey& key) const {
  const auto it = tiles_.find(key);
  return it == tiles_.end() ? 0 : it->second.users;
}

}  // namespace idefics
