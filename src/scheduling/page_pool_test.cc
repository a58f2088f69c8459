#include "scheduling/page_pool.h"

#include <gtest/gtest.h>

namespace idefics {
namespace {

PageId take(PagePool& pool) {
  const std::optional<PageId> page = pool.take();
  EXPECT_TRUE(page);
  return page.value_or(0);
}

TEST(PagePool, hands_out_each_page_once_and_then_nothing) {
  PagePool pool(3);
  EXPECT_EQ(take(pool), 0);
  EXPECT_EQ(take(pool), 1);
  EXPECT_EQ(take(pool), 2);
  EXPECT_FALSE(pool.take());
  EXPECT_EQ(pool.num_available(), 0);
  pool.check_invariants();
}

TEST(PagePool, a_shared_page_stays_until_its_last_owner_leaves) {
  PagePool pool(1);
  const PageId page = take(pool);
  pool.share(page);
  pool.give_back(page);
  EXPECT_FALSE(pool.take());
  pool.give_back(page);
  EXPECT_EQ(pool.num_free(), 1);
  EXPECT_TRUE(pool.take());
}

TEST(PagePool, a_kept_page_is_cached_and_can_be_shared_again) {
  PagePool pool(1);
  const PageId page = take(pool);
  pool.keep(page);
  pool.give_back(page);
  EXPECT_EQ(pool.num_free(), 0);
  EXPECT_EQ(pool.num_cached(), 1);
  pool.check_invariants();
  pool.share(page);
  EXPECT_EQ(pool.num_owners(page), 1);
  EXPECT_TRUE(pool.is_kept(page));
  EXPECT_FALSE(pool.take());
  pool.check_invariants();
}

TEST(PagePool, free_pages_go_before_cached_ones_and_of_those_the_one_left_longest_ago) {
  PagePool pool(4);
  for (int i = 0; i < 4; ++i) take(pool);
  for (const PageId page : {2, 0, 3}) pool.keep(page);
  for (const PageId page : {2, 0, 3, 1}) pool.give_back(page);
  pool.share(0);  // used once more: it is the last to go now
  pool.give_back(0);
  pool.check_invariants();
  EXPECT_EQ(take(pool), 1);
  EXPECT_EQ(take(pool), 2);
  EXPECT_EQ(take(pool), 3);
  EXPECT_EQ(take(pool), 0);
  pool.check_invariants();
}

TEST(PagePool, a_page_that_is_handed_out_again_is_not_kept) {
  PagePool pool(1);
  pool.keep(take(pool));
  pool.give_back(0);
  EXPECT_FALSE(pool.is_kept(take(pool)));
  pool.give_back(0);
  EXPECT_EQ(pool.num_free(), 1);
}

TEST(PagePoolDeathTest, misuse_is_a_bug) {
  PagePool pool(2);
  EXPECT_DEATH(pool.give_back(0), "owners > 0");
  EXPECT_DEATH(pool.share(0), "owners > 0");
  EXPECT_DEATH(pool.keep(0), "num_owners|owners > 0");
  EXPECT_DEATH(pool.num_owners(2), "page < num_pages");
  EXPECT_DEATH(PagePool(0), "num_pages > 0");
}

}  // namespace
}  // namespace idefics
