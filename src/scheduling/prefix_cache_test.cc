#include "scheduling/prefix_cache.h"

#include <gtest/gtest.h>

namespace idefics {
namespace {

TEST(PrefixCache, a_published_page_is_found_until_it_is_forgotten) {
  PrefixCache cache(2);
  EXPECT_FALSE(cache.find(BlockKey{7}));
  EXPECT_TRUE(cache.publish(BlockKey{7}, 1));
  EXPECT_EQ(cache.find(BlockKey{7}), 1);
  EXPECT_TRUE(cache.contains(1));
  cache.forget(1);
  cache.forget(1);
  EXPECT_FALSE(cache.find(BlockKey{7}));
  EXPECT_EQ(cache.size(), 0u);
  cache.check_invariants();
}

TEST(PrefixCache, the_first_page_published_under_a_key_wins) {
  PrefixCache cache(3);
  EXPECT_TRUE(cache.publish(BlockKey{7}, 1));
  EXPECT_FALSE(cache.publish(BlockKey{7}, 2));
  EXPECT_EQ(cache.find(BlockKey{7}), 1);
  EXPECT_FALSE(cache.contains(2));
  cache.forget(2);  // the loser never had the key
  EXPECT_EQ(cache.find(BlockKey{7}), 1);
  cache.check_invariants();
}

TEST(PrefixCache, a_page_keeps_its_first_key) {
  PrefixCache cache(1);
  EXPECT_TRUE(cache.publish(BlockKey{7}, 0));
  EXPECT_FALSE(cache.publish(BlockKey{8}, 0));
  EXPECT_FALSE(cache.find(BlockKey{8}));
  cache.check_invariants();
}

TEST(PrefixCache, keys_differ_in_any_of_their_bytes) {
  for (size_t i = 0; i < 32; ++i) {
    PrefixCache cache(1);
    BlockKey other{7};
    other[i] ^= 1;
    cache.publish(BlockKey{7}, 0);
    EXPECT_FALSE(cache.find(other)) << "byte " << i;
  }
}

}  // namespace
}  // namespace idefics
