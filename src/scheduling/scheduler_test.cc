#include "scheduling/scheduler.h"

#include <gtest/gtest.h>

#include "idefics/error.h"

namespace idefics {
namespace {

constexpr SchedulerOptions kOptions{.num_pages = 16,
                                    .page_size = 4,
                                    .max_len = 64,
                                    .max_sequences = 4,
                                    .max_rows = 16,
                                    .max_tiles = 2,
                                    .tile_tokens = 4};

std::vector<BlockKey> make_keys(uint8_t family, size_t count) {
  std::vector<BlockKey> keys;
  for (size_t i = 0; i < count; ++i) keys.push_back(BlockKey{family, static_cast<uint8_t>(i)});
  return keys;
}

SequenceRequest prompt_of(int32_t tokens, int32_t max_new = 10) {
  return {.num_prompt_tokens = tokens, .max_new_tokens = max_new, .tiles = {}, .keys = {}};
}

SequenceRequest prompt_with_keys(int32_t tokens, uint8_t family) {
  SequenceRequest request = prompt_of(tokens);
  request.keys = make_keys(family, static_cast<size_t>(tokens / kOptions.page_size));
  return request;
}

SequenceRequest prompt_with_tiles(int32_t tokens, std::vector<SequenceTile> tiles) {
  SequenceRequest request = prompt_of(tokens);
  request.tiles = std::move(tiles);
  return request;
}

// A scheduler whose steps all succeed: every sampling sequence gets one token, every tile is encoded.
struct Driver {
  explicit Driver(const SchedulerOptions& options = kOptions, FindFeatures find_features = {})
      : scheduler(options, std::move(find_features)) {}

  const StepPlan& plan() {
    const StepPlan& p = scheduler.plan();
    scheduler.check_invariants();
    return p;
  }
  static StepOutcome succeed(const StepPlan& plan, SequenceId finished = -1) {
    StepOutcome outcome;
    for (const StepPlan::Rows& r : plan.rows) {
      if (r.samples) outcome.sampled.push_back({.sequence = r.sequence, .finished = r.sequence == finished});
    }
    for (const StepPlan::Tile& tile : plan.tiles) outcome.encoded.push_back(tile.key);
    return outcome;
  }
  void commit(const StepOutcome& outcome) {
    scheduler.commit(outcome);
    scheduler.check_invariants();
  }
  void step(SequenceId finished = -1) { commit(succeed(plan(), finished)); }
  SequenceId submit(SequenceRequest request) { return scheduler.submit(std::move(request)).sequence; }

  Scheduler scheduler;
};

const StepPlan::Rows* rows_of(const StepPlan& plan, SequenceId sequence) {
  for (const StepPlan::Rows& r : plan.rows) {
    if (r.sequence == sequence) return &r;
  }
  return nullptr;
}

std::vector<PageId> pages_of(const StepPlan& plan, SequenceId sequence) {
  const StepPlan::Rows* rows = rows_of(plan, sequence);
  if (!rows) return {};
  const auto pages = plan.pages(*rows);
  return {pages.begin(), pages.end()};
}

// ---- prompts and decoding ----

TEST(Scheduler, a_prompt_is_computed_in_chunks_and_then_decodes_row_by_row) {
  Driver d;
  const SequenceId id = d.submit(prompt_of(20));
  const StepPlan& plan = d.plan();
  ASSERT_EQ(plan.rows.size(), 1u);
  EXPECT_EQ(plan.rows[0].context, 0);
  EXPECT_EQ(plan.rows[0].num_rows, 16);
  EXPECT_FALSE(plan.rows[0].samples);
  EXPECT_EQ(pages_of(plan, id).size(), 4u);
  d.commit({});
  d.plan();
  EXPECT_EQ(plan.rows[0].context, 16);
  EXPECT_EQ(plan.rows[0].num_rows, 4);
  EXPECT_TRUE(plan.rows[0].samples);
  d.commit(Driver::succeed(plan));
  d.plan();
  EXPECT_EQ(plan.rows[0].context, 20);
  EXPECT_EQ(plan.rows[0].num_rows, 1);
  EXPECT_EQ(pages_of(plan, id).size(), 6u);
  d.commit(Driver::succeed(plan, id));
  EXPECT_FALSE(d.scheduler.has_work());
  EXPECT_EQ(d.scheduler.pages().num_free(), 16);
}

TEST(Scheduler, who_came_first_is_first_whenever_it_is_submitted) {
  Driver d;
  SequenceRequest late = prompt_of(12), early = prompt_of(12);
  late.arrival = 2;
  early.arrival = 1;
  const SequenceId second = d.submit(late), first = d.submit(early);
  const StepPlan& plan = d.plan();
  ASSERT_EQ(plan.rows.size(), 2u);
  EXPECT_EQ(plan.rows[0].sequence, first);
  EXPECT_EQ(plan.rows[0].num_rows, 12);
  EXPECT_EQ(plan.rows[1].sequence, second);
  EXPECT_EQ(plan.rows[1].num_rows, 4);
}

TEST(Scheduler, tiles_on_hold_keep_nobody_else_waiting) {
  SchedulerOptions one_tile = kOptions;
  one_tile.max_tiles = 1;
  Driver d(one_tile);
  const TileKey shared = make_keys(1, 1)[0], own = make_keys(2, 1)[0], other = make_keys(3, 1)[0];
  const SequenceId held = d.submit(prompt_with_tiles(12, {{0, own}, {4, shared}}));
  const SequenceId next = d.submit(prompt_with_tiles(12, {{0, shared}, {4, other}}));
  const StepPlan& plan = d.plan();
  ASSERT_EQ(plan.tiles.size(), 1u);
  EXPECT_EQ(plan.tiles[0].sequence, held);
  d.scheduler.hold_tiles(held, true);
  d.commit({});
  for (const TileKey& key : {shared, other}) {
    d.plan();
    ASSERT_EQ(plan.tiles.size(), 1u);
    EXPECT_EQ(plan.tiles[0].sequence, next);
    EXPECT_EQ(plan.tiles[0].key, key);
    d.commit(Driver::succeed(plan));
  }
  d.plan();
  EXPECT_NE(rows_of(plan, next), nullptr);
  EXPECT_EQ(rows_of(plan, held), nullptr);
  d.commit(Driver::succeed(plan, next));
  d.plan();
  EXPECT_TRUE(plan.empty());
  EXPECT_TRUE(d.scheduler.has_work());
  d.commit({});
  d.scheduler.hold_tiles(held, false);
  d.plan();
  ASSERT_EQ(plan.tiles.size(), 1u) << "the other one is encoded";
  EXPECT_EQ(plan.tiles[0].key, own);
  d.commit(Driver::succeed(plan));
  d.plan();
  EXPECT_NE(rows_of(plan, held), nullptr);
}

TEST(Scheduler, streams_get_their_row_first_and_prompts_the_rest_oldest_first) {
  Driver d;
  const SequenceId a = d.submit(prompt_of(2)), b = d.submit(prompt_of(2));
  d.step();
  const SequenceId c = d.submit(prompt_of(10)), e = d.submit(prompt_of(10));
  const StepPlan& plan = d.plan();
  ASSERT_EQ(plan.rows.size(), 4u);
  EXPECT_EQ(plan.rows[0].sequence, a);
  EXPECT_EQ(plan.rows[1].sequence, b);
  EXPECT_EQ(plan.rows[2].sequence, c);
  EXPECT_EQ(plan.rows[2].num_rows, 10);
  EXPECT_EQ(plan.rows[3].sequence, e);
  EXPECT_EQ(plan.rows[3].num_rows, 4);
  EXPECT_EQ(plan.rows[3].first_row, 12);
  EXPECT_EQ(plan.num_rows, 16);
}

TEST(Scheduler, no_more_sequences_run_than_allowed) {
  Driver d;
  for (int i = 0; i < 6; ++i) d.submit(prompt_of(2));
  d.step();
  EXPECT_EQ(d.scheduler.num_running(), 4);
  EXPECT_EQ(d.scheduler.num_waiting(), 2);
}

TEST(Scheduler, refuses_a_prompt_that_leaves_no_room_for_a_token) {
  Scheduler scheduler(kOptions);
  try {
    scheduler.submit(prompt_with_tiles(64, {{0, TileKey{1}}}));
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kContextLengthExceeded);
    EXPECT_STREQ(e.what(),
                 "prompt: 64 tokens (4 of them for 1 image tiles) leave no room in the context of 64; shorten the "
                 "text, send fewer or smaller images, or lower max_tiles");
  }
  EXPECT_FALSE(scheduler.has_work());
  EXPECT_EQ(scheduler.submit(prompt_of(63, 100)).max_new_tokens, 1);
}

TEST(Scheduler, refuses_a_prompt_that_never_fits_the_pages) {
  SchedulerOptions options = kOptions;
  options.num_pages = 3;
  Scheduler scheduler(options);
  try {
    scheduler.submit(prompt_of(12));
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kContextLengthExceeded);
    EXPECT_NE(std::string(e.what()).find("KV cache of 12 tokens (3 pages of 4)"), std::string::npos) << e.what();
  }
  EXPECT_EQ(scheduler.submit(prompt_of(11, 100)).max_new_tokens, 1);
}

// ---- admission and preemption ----

TEST(Scheduler, a_younger_prompt_does_not_overtake_an_older_one_that_does_not_fit_yet) {
  Driver d;
  d.submit(prompt_of(40));
  d.step();
  const SequenceId large = d.submit(prompt_of(30)), small = d.submit(prompt_of(2));
  const StepPlan& plan = d.plan();
  EXPECT_FALSE(rows_of(plan, large));
  EXPECT_FALSE(rows_of(plan, small));
  EXPECT_EQ(d.scheduler.num_waiting(), 2);
}

TEST(Scheduler, preempts_the_youngest_and_computes_its_tokens_again) {
  SchedulerOptions options = kOptions;
  options.num_pages = 4;
  Driver d(options);
  const SequenceId old = d.submit(prompt_of(4)), young = d.submit(prompt_of(4));
  d.step();  // both prompts; each has one page, and may grow by one
  for (int i = 0; i < 4; ++i) d.step();
  EXPECT_EQ(d.scheduler.num_running(), 2);
  const StepPlan& plan = d.plan();  // both need a third page
  EXPECT_EQ(plan.preempted, std::vector{young});
  EXPECT_TRUE(rows_of(plan, old));
  EXPECT_FALSE(rows_of(plan, young));
  d.commit(Driver::succeed(plan, old));
  d.plan();
  ASSERT_TRUE(rows_of(plan, young));
  EXPECT_EQ(rows_of(plan, young)->context, 0);
  EXPECT_EQ(rows_of(plan, young)->num_rows, 9);  // four of the prompt and the five sampled
  EXPECT_TRUE(rows_of(plan, young)->samples);
}

TEST(Scheduler, a_lone_sequence_may_fill_all_pages) {
  SchedulerOptions options = kOptions;
  options.num_pages = 3;
  Driver d(options);
  const auto [id, max_new] = d.scheduler.submit(prompt_of(5, 100));
  EXPECT_EQ(max_new, 7);
  for (int i = 1; i < max_new; ++i) d.step();
  EXPECT_EQ(d.scheduler.num_running(), 1);
  d.step(id);
  EXPECT_EQ(d.scheduler.counters().preemptions, 0);
}

TEST(Scheduler, a_newcomer_leaves_a_page_for_each_running_sequence) {
  SchedulerOptions options = kOptions;
  options.num_pages = 4;
  Driver d(options);
  const SequenceId a = d.submit(prompt_of(8));
  d.step();
  const SequenceId late = d.submit(prompt_of(4));
  const StepPlan& plan = d.plan();  // the third page for a: the fourth would do for the newcomer, but then none is left
  EXPECT_FALSE(rows_of(plan, late));
  d.commit(Driver::succeed(plan, a));
  EXPECT_TRUE(rows_of(d.plan(), late));
}

TEST(Scheduler, what_was_preempted_does_not_come_back_in_the_same_step) {
  SchedulerOptions options = kOptions;
  options.num_pages = 6;
  Driver d(options);
  d.submit(prompt_of(4));
  d.submit(prompt_of(4));
  const SequenceId youngest = d.submit(prompt_with_keys(4, 1));
  for (int i = 0; i < 5; ++i) d.step();
  const StepPlan& plan = d.plan();  // all three need a third page: the youngest has two to give
  EXPECT_EQ(plan.preempted, std::vector{youngest});
  EXPECT_EQ(plan.rows.size(), 2u);
}

// ---- cancelling ----

TEST(Scheduler, a_cancelled_sequence_frees_its_pages_at_once_whatever_it_was_doing) {
  Driver d;
  const SequenceId decoding = d.submit(prompt_of(4));
  d.step();
  const SequenceId prompt = d.submit(prompt_of(30));
  d.step();
  d.submit(prompt_of(2));
  const SequenceId waiting = d.submit(prompt_of(3));
  EXPECT_TRUE(d.scheduler.cancel(waiting));
  EXPECT_TRUE(d.scheduler.cancel(prompt));
  EXPECT_TRUE(d.scheduler.cancel(decoding));
  EXPECT_FALSE(d.scheduler.cancel(decoding));
  EXPECT_EQ(d.scheduler.pages().num_free(), 16);
  d.scheduler.check_invariants();
}

TEST(Scheduler, a_cancel_inside_a_step_leaves_the_others_alone) {
  Driver d;
  const SequenceId a = d.submit(prompt_with_keys(8, 1)), b = d.submit(prompt_of(4));
  const StepPlan& plan = d.plan();
  const StepOutcome outcome = Driver::succeed(plan);
  EXPECT_TRUE(d.scheduler.cancel(a));
  d.scheduler.check_invariants();
  d.commit(outcome);  // names the cancelled one too
  EXPECT_EQ(d.scheduler.pages().num_cached(), 0) << "nothing of a cancelled step is published";
  d.plan();
  EXPECT_EQ(rows_of(plan, b)->context, 4);
}

TEST(Scheduler, an_abandoned_step_is_planned_again) {
  Driver d;
  const SequenceId a = d.submit(prompt_with_tiles(9, {{2, TileKey{1}}}));
  const StepPlan& plan = d.plan();
  EXPECT_EQ(plan.tiles.size(), 1u);
  d.scheduler.abandon();
  d.scheduler.check_invariants();
  d.plan();
  EXPECT_FALSE(rows_of(plan, a)) << "still without its tile";
  EXPECT_EQ(plan.tiles.size(), 1u);
}

// ---- prefixes ----

TEST(Scheduler, a_later_prompt_shares_the_full_pages_it_has_in_common) {
  Driver d;
  const SequenceId a = d.submit(prompt_with_keys(10, 1));
  const StepPlan& plan = d.plan();
  const std::vector<PageId> pages = pages_of(plan, a);
  d.commit(Driver::succeed(plan));
  const SequenceId b = d.submit(prompt_with_keys(10, 1));
  d.plan();
  EXPECT_EQ(rows_of(plan, b)->context, 8);
  EXPECT_EQ(rows_of(plan, b)->num_rows, 2);
  const std::vector<PageId> shared = pages_of(plan, b);
  EXPECT_EQ(shared[0], pages[0]);
  EXPECT_EQ(shared[1], pages[1]);
  EXPECT_NE(shared[2], pages[2]);
  EXPECT_EQ(d.scheduler.counters().cached_tokens, 8);
}

TEST(Scheduler, the_last_token_is_always_computed) {
  Driver d;
  const SequenceId a = d.submit(prompt_with_keys(8, 1));
  d.step(a);
  const SequenceId b = d.submit(prompt_with_keys(8, 1));
  EXPECT_EQ(rows_of(d.plan(), b)->context, 4);
}

TEST(Scheduler, pages_are_not_found_before_they_are_computed) {
  Driver d;
  d.submit(prompt_with_keys(24, 1));
  const SequenceId b = d.submit(prompt_with_keys(24, 1));
  const StepPlan& plan = d.plan();
  EXPECT_EQ(d.scheduler.counters().cached_tokens, 0);
  EXPECT_FALSE(rows_of(plan, b));
  d.commit(Driver::succeed(plan));
  d.plan();  // b skips what a has published meanwhile
  EXPECT_EQ(rows_of(plan, b)->context, 16);
  EXPECT_EQ(d.scheduler.counters().cached_tokens, 16);
}

TEST(Scheduler, of_two_that_compute_the_same_page_the_first_is_published) {
  Driver d;
  const SequenceId a = d.submit(prompt_with_keys(5, 1)), b = d.submit(prompt_with_keys(5, 1));
  const StepPlan& plan = d.plan();
  const PageId first = pages_of(plan, a)[0], second = pages_of(plan, b)[0];
  EXPECT_NE(first, second);
  d.commit(Driver::succeed(plan));
  const SequenceId c = d.submit(prompt_with_keys(5, 1));
  d.plan();
  EXPECT_EQ(pages_of(plan, b)[0], second) << "the other keeps its copy";
  EXPECT_EQ(pages_of(plan, c)[0], first);
}

TEST(Scheduler, generated_pages_are_found_by_the_next_turn) {
  Driver d;
  const SequenceId a = d.submit(prompt_with_keys(6, 1));
  d.step();
  const std::vector<BlockKey> keys = make_keys(1, 2);
  for (int i = 0; i < 2; ++i) {
    d.plan();
    d.commit({.sampled = {{.sequence = a, .finished = i == 1, .keys = keys}}, .encoded = {}});
  }
  const SequenceId b = d.submit(prompt_with_keys(12, 1));
  EXPECT_EQ(rows_of(d.plan(), b)->context, 8);
}

TEST(Scheduler, the_end_of_a_cached_prefix_is_evicted_before_its_beginning) {
  Driver d;
  d.submit(prompt_with_keys(16, 1));
  d.step(0);
  EXPECT_EQ(d.scheduler.pages().num_cached(), 4);
  const SequenceId big = d.submit(prompt_of(54));  // takes 14 pages: the 12 free ones and two that are cached
  d.step();
  d.scheduler.cancel(big);
  const SequenceId b = d.submit(prompt_with_keys(16, 1));
  EXPECT_EQ(rows_of(d.plan(), b)->context, 8);
}

TEST(Scheduler, a_preempted_sequence_finds_what_is_left_of_its_pages) {
  SchedulerOptions options = kOptions;
  options.num_pages = 5;
  Driver d(options);
  const SequenceId old = d.submit(prompt_of(4)), young = d.submit(prompt_with_keys(8, 1));
  d.step();
  const StepPlan& plan = d.plan();  // one page for each: none is left
  d.commit(Driver::succeed(plan));
  for (int i = 0; i < 3; ++i) d.step();
  d.plan();
  EXPECT_EQ(plan.preempted, std::vector{young});
  d.commit(Driver::succeed(plan, old));
  d.plan();
  EXPECT_EQ(rows_of(plan, young)->context, 8);
}

// ---- tiles ----

TEST(Scheduler, a_chunk_waits_for_all_its_tiles) {
  SchedulerOptions options = kOptions;
  options.max_rows = 8;
  Driver d(options);
  const SequenceId a = d.submit(prompt_with_tiles(14, {{1, TileKey{1}}, {5, TileKey{2}}, {9, TileKey{3}}}));
  const StepPlan& plan = d.plan();
  EXPECT_FALSE(rows_of(plan, a));
  ASSERT_EQ(plan.tiles.size(), 2u);
  EXPECT_EQ(plan.tiles[0].sequence, a);
  EXPECT_EQ(plan.tiles[0].tile, 0);
  EXPECT_EQ(plan.tiles[1].key, TileKey{2});
  d.commit({.sampled = {}, .encoded = {TileKey{1}}});  // interrupted after the first
  d.plan();
  EXPECT_FALSE(rows_of(plan, a));
  ASSERT_EQ(plan.tiles.size(), 1u) << "the third lies behind the chunk";
  EXPECT_EQ(plan.tiles[0].key, TileKey{2});
  d.commit(Driver::succeed(plan));
  d.plan();
  EXPECT_EQ(rows_of(plan, a)->num_rows, 8) << "into the second tile";
  EXPECT_EQ(plan.tiles[0].key, TileKey{3});
  EXPECT_TRUE(plan.dropped.empty());
  d.commit(Driver::succeed(plan));
  d.plan();
  EXPECT_EQ(rows_of(plan, a)->num_rows, 6);
  EXPECT_EQ(plan.dropped, std::vector{TileKey{1}});
}

TEST(Scheduler, streams_go_on_while_a_picture_of_many_tiles_is_encoded) {
  SchedulerOptions options = kOptions;
  options.num_pages = 40;
  options.max_len = 160;
  Driver d(options);
  const SequenceId stream = d.submit(prompt_of(2, 100));
  d.step();
  std::vector<SequenceTile> tiles;
  for (int i = 0; i < 17; ++i) tiles.push_back({1 + 5 * i, TileKey{static_cast<uint8_t>(i)}});
  const SequenceId picture = d.submit(prompt_with_tiles(90, tiles));
  int steps = 0, encoded = 0;
  for (bool sampled = false; !sampled; ++steps) {
    const StepPlan& plan = d.plan();
    ASSERT_TRUE(rows_of(plan, stream));
    ASSERT_LE(plan.tiles.size(), 2u);
    encoded += static_cast<int>(plan.tiles.size());
    sampled = rows_of(plan, picture) && rows_of(plan, picture)->samples;
    d.commit(Driver::succeed(plan));
  }
  EXPECT_EQ(encoded, 17);
  EXPECT_LE(steps, 12) << "two tiles in each of nine, and the chunks that wait for them";
}

TEST(Scheduler, equal_tiles_of_different_requests_are_encoded_once) {
  Driver d;
  const SequenceId a = d.submit(prompt_with_tiles(6, {{1, TileKey{1}}}));
  const SequenceId b = d.submit(prompt_with_tiles(11, {{1, TileKey{1}}, {6, TileKey{1}}}));
  const StepPlan& plan = d.plan();
  EXPECT_EQ(plan.tiles.size(), 1u);
  d.commit(Driver::succeed(plan));
  d.plan();
  EXPECT_TRUE(plan.tiles.empty());
  EXPECT_EQ(rows_of(plan, a)->num_rows, 6);
  EXPECT_EQ(rows_of(plan, b)->num_rows, 10);
  d.commit(Driver::succeed(plan));
  d.plan();
  EXPECT_EQ(plan.dropped, std::vector{TileKey{1}});
}

TEST(Scheduler, a_found_prefix_needs_features_only_from_the_tile_it_ends_in) {
  std::vector<TileKey> asked;
  Driver d(kOptions, [&](const TileKey& key) {
    asked.push_back(key);
    return false;
  });
  SequenceRequest request = prompt_with_keys(16, 1);
  request.tiles = {{0, TileKey{1}}, {6, TileKey{2}}, {11, TileKey{3}}};
  request.keys.resize(2);
  const SequenceId a = d.submit(request);
  while (d.scheduler.has_work()) d.step(a);
  asked.clear();
  const SequenceId b = d.submit(request);
  const StepPlan& plan = d.plan();
  EXPECT_EQ(asked, (std::vector{TileKey{2}, TileKey{3}}));
  EXPECT_FALSE(rows_of(plan, b));
  ASSERT_EQ(plan.tiles.size(), 2u);
  EXPECT_EQ(plan.tiles[0].tile, 1);
  d.commit(Driver::succeed(plan));
  d.plan();
  EXPECT_EQ(rows_of(plan, b)->context, 8);
  EXPECT_EQ(rows_of(plan, b)->num_rows, 8);
}

TEST(Scheduler, features_at_hand_are_used_in_the_first_step) {
  Driver d(kOptions, [](const TileKey&) { return true; });
  const SequenceId a = d.submit(prompt_with_tiles(6, {{1, TileKey{1}}}));
  const StepPlan& plan = d.plan();
  EXPECT_TRUE(plan.tiles.empty());
  EXPECT_EQ(rows_of(plan, a)->num_rows, 6);
  d.scheduler.cancel(a);
  d.commit({});
  EXPECT_TRUE(d.scheduler.has_work()) << "there are features to drop";
  d.plan();
  EXPECT_TRUE(plan.empty());
  EXPECT_EQ(plan.dropped, std::vector{TileKey{1}});
  d.commit({});
  EXPECT_FALSE(d.scheduler.has_work());
}

TEST(Scheduler, tiles_far_ahead_are_not_encoded_yet) {
  SchedulerOptions options = kOptions;
  options.max_tiles = 100;
  options.max_rows = 4;
  Driver d(options);
  d.submit(prompt_with_tiles(40, {{0, TileKey{1}}, {4, TileKey{2}}, {30, TileKey{3}}}));
  const StepPlan& plan = d.plan();
  EXPECT_EQ(plan.tiles.size(), 1u);  // the first four tokens
}

// ---- drafts ----

TEST(Scheduler, accepted_drafts_advance_and_rejected_ones_are_overwritten) {
  Driver d;
  const SequenceId a = d.submit(prompt_of(6, 20));
  const StepPlan& plan = d.plan();
  d.commit({.sampled = {{.sequence = a, .num_drafts = 5}}, .encoded = {}});
  d.plan();
  EXPECT_EQ(plan.rows[0].context, 6);
  EXPECT_EQ(plan.rows[0].num_rows, 6);
  EXPECT_EQ(plan.rows[0].num_drafts, 5);
  EXPECT_EQ(pages_of(plan, a).size(), 3u);
  d.commit({.sampled = {{.sequence = a, .num_tokens = 3, .num_drafts = 1}}, .encoded = {}});
  d.plan();
  EXPECT_EQ(plan.rows[0].context, 9);
  EXPECT_EQ(plan.rows[0].num_rows, 2);
}

TEST(Scheduler, pages_of_rejected_drafts_are_given_back) {
  Driver d;
  const SequenceId a = d.submit(prompt_of(3, 30));
  d.plan();
  d.commit({.sampled = {{.sequence = a, .num_drafts = 12}}, .encoded = {}});
  d.plan();
  EXPECT_EQ(d.scheduler.pages().num_free(), 12);
  d.commit({.sampled = {{.sequence = a}}, .encoded = {}});
  EXPECT_EQ(d.scheduler.pages().num_free(), 14);
}

TEST(Scheduler, drafts_never_pass_the_last_token) {
  Driver d;
  const SequenceId a = d.submit(prompt_of(3, 4));
  const StepPlan& plan = d.plan();
  d.commit({.sampled = {{.sequence = a, .num_drafts = 9}}, .encoded = {}});
  d.plan();
  EXPECT_EQ(plan.rows[0].num_drafts, 2);  // three tokens are left, one of them is sampled behind the drafts
  d.commit({.sampled = {{.sequence = a, .num_tokens = 3, .finished = true}}, .encoded = {}});
}

TEST(Scheduler, drafts_leave_rows_to_a_prompt) {
  SchedulerOptions options = kOptions;
  options.max_rows = 6;
  Driver d(options);
  const SequenceId a = d.submit(prompt_of(3, 20));
  const StepPlan& plan = d.plan();
  d.commit({.sampled = {{.sequence = a, .num_drafts = 9}}, .encoded = {}});
  const SequenceId b = d.submit(prompt_of(10));
  d.plan();
  EXPECT_EQ(rows_of(plan, a)->num_drafts, 2);
  EXPECT_EQ(rows_of(plan, b)->num_rows, 3);
}

TEST(Scheduler, drafts_preempt_nobody) {
  SchedulerOptions options = kOptions;
  options.num_pages = 4;
  Driver d(options);
  const SequenceId a = d.submit(prompt_of(4)), b = d.submit(prompt_of(4));
  d.plan();
  d.commit({.sampled = {{.sequence = a, .num_drafts = 9}, {.sequence = b}}, .encoded = {}});
  const StepPlan& plan = d.plan();
  EXPECT_TRUE(plan.preempted.empty());
  EXPECT_EQ(rows_of(plan, a)->num_drafts, 3);  // to the end of its page
}

// ---- forks ----

TEST(Scheduler, forks_share_the_prompt_and_copy_the_page_they_write_to) {
  Driver d;
  const SequenceId a = d.submit(prompt_of(6));
  const StepPlan& plan = d.plan();
  StepOutcome outcome = Driver::succeed(plan);
  const std::vector<SequenceId> forks = d.scheduler.fork(a, 2);
  ASSERT_EQ(forks.size(), 2u);
  d.scheduler.check_invariants();
  for (const SequenceId id : forks) outcome.sampled.push_back({.sequence = id});
  d.commit(outcome);
  EXPECT_EQ(d.scheduler.pages().num_free(), 14);
  d.plan();
  ASSERT_EQ(plan.rows.size(), 3u);
  ASSERT_EQ(plan.copies.size(), 2u) << "the last one to write has the page for itself";
  EXPECT_EQ(plan.copies[0].from, 1);
  EXPECT_EQ(pages_of(plan, a), (std::vector{0, plan.copies[0].to}));
  EXPECT_EQ(pages_of(plan, forks[0]), (std::vector{0, plan.copies[1].to}));
  EXPECT_EQ(pages_of(plan, forks[1]), (std::vector{0, 1}));
}

TEST(Scheduler, a_fork_outlives_its_parent) {
  Driver d;
  const SequenceId a = d.submit(prompt_of(6));
  const StepPlan& plan = d.plan();
  const SequenceId b = d.scheduler.fork(a, 1)[0];
  d.commit({.sampled = {{.sequence = b}, {.sequence = a, .finished = true}}, .encoded = {}});
  d.plan();
  EXPECT_TRUE(plan.copies.empty());
  EXPECT_EQ(rows_of(plan, b)->context, 6);
}

TEST(Scheduler, forks_are_as_old_as_their_parent) {
  SchedulerOptions options = kOptions;
  options.max_sequences = 2;
  Driver d(options);
  const SequenceId a = d.submit(prompt_of(6)), younger = d.submit(prompt_of(6));
  const StepPlan& plan = d.plan();
  StepOutcome outcome = Driver::succeed(plan);
  const SequenceId b = d.scheduler.fork(a, 1)[0];
  outcome.sampled.push_back({.sequence = b});
  d.commit(outcome);
  d.plan();
  EXPECT_EQ(plan.preempted, std::vector{younger});
  EXPECT_TRUE(rows_of(plan, a));
  EXPECT_TRUE(rows_of(plan, b));
}

// ---- wrong calls ----

TEST(SchedulerDeathTest, misuse_is_a_bug) {
  Driver d;
  EXPECT_DEATH(d.scheduler.commit({}), "under_way_");
  EXPECT_DEATH(d.submit(prompt_of(0)), "num_prompt_tokens > 0");
  EXPECT_DEATH(d.submit(prompt_with_tiles(8, {{0, TileKey{1}}, {3, TileKey{2}}})), "tile.first >= end");
  EXPECT_DEATH(d.submit(prompt_with_tiles(8, {{5, TileKey{1}}})), "num_prompt_tokens");
  const SequenceId a = d.submit(prompt_of(3, 1));
  EXPECT_DEATH(d.scheduler.fork(a, 1), "under_way_");
  d.plan();
  EXPECT_DEATH(d.plan(), "under_way_");
  EXPECT_DEATH(d.scheduler.commit({}), "sampled");
  EXPECT_DEATH(d.scheduler.commit({.sampled = {{.sequence = a, .num_tokens = 2}}, .encoded = {}}), "num_tokens");
  EXPECT_DEATH(d.scheduler.commit({.sampled = {{.sequence = a}}, .encoded = {}}), "finished");
}

}  // namespace
}  // namespace idefics
