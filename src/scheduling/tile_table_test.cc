#include "scheduling/tile_table.h"

#include <gtest/gtest.h>

namespace idefics {
namespace {

const TileKey kA{1}, kB{2};

std::vector<TileKey> take_unused(TileTable& table) {
  std::vector<TileKey> dropped;
  table.take_unused(dropped);
  return dropped;
}

void encode(TileTable& table, const TileKey& key) {
  table.mark_planned(key);
  table.mark_ready(key);
}

TEST(TileTable, a_tile_is_missing_until_it_was_encoded) {
  TileTable table({});
  table.add_user(kA);
  EXPECT_TRUE(table.is_missing(kA));
  table.mark_planned(kA);
  EXPECT_FALSE(table.is_missing(kA));
  EXPECT_FALSE(table.is_ready(kA));
  table.mark_not_encoded(kA);
  EXPECT_TRUE(table.is_missing(kA));
  encode(table, kA);
  table.mark_not_encoded(kA);
  EXPECT_TRUE(table.is_ready(kA));
}

TEST(TileTable, features_are_dropped_when_their_last_user_has_left) {
  TileTable table({});
  table.add_user(kA);
  table.add_user(kA);
  encode(table, kA);
  table.remove_user(kA);
  EXPECT_TRUE(take_unused(table).empty());
  table.remove_user(kA);
  EXPECT_EQ(take_unused(table), std::vector{kA});
  EXPECT_EQ(table.size(), 0u);
}

TEST(TileTable, a_new_user_in_time_saves_the_features) {
  TileTable table({});
  table.add_user(kA);
  encode(table, kA);
  for (int i = 0; i < 2; ++i) {
    table.remove_user(kA);
    table.add_user(kA);
  }
  EXPECT_TRUE(take_unused(table).empty());
  EXPECT_TRUE(table.is_ready(kA));
  table.remove_user(kA);
  EXPECT_EQ(take_unused(table), std::vector{kA});
}

TEST(TileTable, a_tile_that_was_never_encoded_is_forgotten_in_silence) {
  TileTable table({});
  table.add_user(kA);
  table.remove_user(kA);
  EXPECT_TRUE(take_unused(table).empty());
  EXPECT_EQ(table.size(), 0u);
}

TEST(TileTable, features_at_hand_are_asked_for_once_and_need_no_encoding) {
  int asked = 0;
  TileTable table([&](const TileKey& key) {
    ++asked;
    return key == kA;
  });
  table.add_user(kA);
  table.add_user(kA);
  table.add_user(kB);
  EXPECT_EQ(asked, 2);
  EXPECT_TRUE(table.is_ready(kA));
  EXPECT_TRUE(table.is_missing(kB));
  table.remove_user(kA);
  table.remove_user(kA);
  EXPECT_EQ(take_unused(table), std::vector{kA});
}

TEST(TileTableDeathTest, only_a_planned_tile_becomes_ready) {
  TileTable table({});
  EXPECT_DEATH(table.mark_ready(kA), "kPlanned");
  table.add_user(kA);
  EXPECT_DEATH(table.mark_ready(kA), "kPlanned");
}

}  // namespace
}  // namespace idefics
