#include "scheduling/scheduler.h"

#include <gtest/gtest.h>

namespace idefics {
namespace {

TEST(Scheduler, a_prompt_is_computed_in_chunks_and_then_decodes_row_by_row) {
  Scheduler scheduler({.num_pages = 8,
                       .page_size = 4,
                       .max_len = 32,
                       .max_sequences = 2,
                       .max_rows = 5,
                       .max_tiles = 1,
                       .tile_tokens = 3});
  const auto [id, max_new] = scheduler.submit({.num_prompt_tokens = 7, .max_new_tokens = 2, .tiles = {}, .keys = {}});
  EXPECT_EQ(max_new, 2);
  const StepPlan& plan = scheduler.plan();
  ASSERT_EQ(plan.rows.size(), 1u);
  EXPECT_EQ(plan.rows[0].num_rows, 5);
  EXPECT_FALSE(plan.rows[0].samples);
  scheduler.check_invariants();
  scheduler.commit({});
  scheduler.plan();
  EXPECT_EQ(plan.rows[0].context, 5);
  EXPECT_TRUE(plan.rows[0].samples);
  scheduler.commit({.sampled = {{.sequence = id}}, .encoded = {}});
  scheduler.plan();
  EXPECT_EQ(plan.rows[0].context, 7);
  EXPECT_EQ(plan.rows[0].num_rows, 1);
  scheduler.commit({.sampled = {{.sequence = id, .finished = true}}, .encoded = {}});
  EXPECT_FALSE(scheduler.has_work());
  scheduler.check_invariants();
}

}  // namespace
}  // namespace idefics
