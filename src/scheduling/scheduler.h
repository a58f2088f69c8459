// Decides what each step of the engine computes. It knows integers only: sequences, pages, tiles, rows and opaque keys.
//
//   Scheduler scheduler(options);
//   auto [sequence, max_new_tokens] = scheduler.submit({...});   // or Error: it can never fit
//   while (scheduler.has_work()) {
//     const StepPlan& plan = scheduler.plan();
//     run(plan);                                                 // fork() and cancel() may come here
//     scheduler.commit(outcome);                                 // or abandon()
//   }
//
// A sequence is waiting, running or gone. A running one first has its prompt computed in chunks, then decodes: one row
// per step and a few draft rows. When pages run short the youngest running sequence is preempted: it waits again with
// all its tokens known and none computed, which its caller need not notice. Older comes first in everything, hence:
//
//   - Nothing starves: the oldest running sequence is never preempted and gets a row or a tile in every step; a younger
//     sequence is never admitted before an older one.
//   - Running streams do not stall: each decoding sequence has a row in every step; rows and tiles per step are
//   bounded.
//   - A sequence's tokens do not depend on what runs beside it: its rows only ever see its own history
//   (simulator_test).
//
// Pages. A prompt is admitted with all its pages, a decoding sequence takes one when it gets there. Full pages with a
// key are published once their tokens are computed; a later sequence with the same keys shares them instead of
// computing, but for its last token. A published page never changes. Pages that nobody owns stay findable until they
// are needed, the one left longest ago first, the end of a prefix before its beginning.
//
// Tiles. A chunk is computed when the features of all its tiles are there since an earlier step. The tiles that the
// next max_rows tokens of a prompt need are planned, max_tiles per step; equal keys are encoded once while anybody
// needs them; tiles wholly inside a shared prefix are not needed at all.
//
// Deterministic: the same calls give the same plans. Cost of a step: proportional to its rows, the pages of its
// sequences, and the pages of the oldest waiting prompt.
// Threads: one owner (the engine thread). Errors: submit() only; a wrong call is a bug (IDEFICS_CHECK).
#pragma once

#include <map>

#include "scheduling/page_pool.h"
#include "scheduling/prefix_cache.h"
#include "scheduling/sequence.h"
#include "scheduling/step_plan.h"
#include "scheduling/tile_table.h"

namespace idefics {

struct SchedulerOptions {
  int32_t num_pages;      // KV pages there are
  int32_t page_size;      // tokens per page
  int32_t max_len;        // most tokens of prompt and answer (the model's context)
  int32_t max_sequences;  // most sequences that run at the same time
  int32_t max_rows;       // most rows per step, at least max_sequences
  int32_t max_tiles;      // most tiles encoded per step
  int32_t tile_tokens;    // tokens per tile in a prompt
};

class Scheduler {
 public:
  explicit Scheduler(const SchedulerOptions& options, FindFeatures find_features = {});

  struct Submitted {
    SequenceId sequence;
    int32_t max_new_tokens;  // what was asked for, cut to what context and pages allow
  };
  // A new sequence, which waits. Error kContextLengthExceeded: prompt and one token fit neither context nor pages.
  Submitted submit(SequenceRequest request);

  // The next step. The plan belongs to the scheduler and stays as it is until the next call.
  // REQUIRES: the step before was committed or abandoned.
  // Whenever a sequence waits or runs, the plan has a row or a tile, unless tiles are on hold.
  const StepPlan& plan();

  // Makes `count` more sequences with the tokens of `parent` so far; they share its pages, copying when they write.
  // Each samples its own token in this step: commit() wants its outcome too. Forks that are too many to run wait.
  // REQUIRES: between plan() and commit(); `parent` samples in this step, without drafts, and was not cancelled.
  std::vector<SequenceId> fork(SequenceId parent, int32_t count);

  // The step ran. Sequences that were cancelled since plan() may be left out of the outcome or stand in it.
  void commit(const StepOutcome& outcome);
  // The step did not run, or what it computed is thrown away; its drops and copies were carried out. Everything will be
  // planned again. REQUIRES: no fork() since plan().
  void abandon();

  // Plans no tile for this sequence until it is said to go on; another sequence that needs the same tile gets it
  // planned. At any time; nothing happens when there is no such sequence (any more).
  void hold_tiles(SequenceId sequence, bool hold);

  // The sequence is gone and its pages are free. At any time; false when there is no such sequence (any more).
  bool cancel(SequenceId sequence);

  bool has_work() const { return !running_.empty() || !waiting_.empty() || tiles_.has_unused(); }
  int32_t num_waiting() const { return static_cast<int32_t>(waiting_.size()); }
  int32_t num_running() const { return static_cast<int32_t>(running_.size()); }
  const PagePool& pages() const { return pages_; }
  const SchedulerOptions& options() const { return options_; }
  struct Counters {
    int64_t admissions = 0, preemptions = 0;
    int64_t cached_tokens = 0;  // that were not computed because a page with them was found
  };
  const Counters& counters() const { return counters_; }

  // All invariants of this room. O(everything); for tests, at any time.
  void check_invariants() const;

 private:
  int32_t pages_for(int64_t tokens) const;
  std::optional<PageId> take_page();
  void check_request(const SequenceRequest& request) const;
  void refuse_what_never_fits(const SequenceRequest& request) const;

  // The parts of plan().
  void make_room_for_decoding();
  bool make_next_slot_writable(Sequence& sequence);
  void admit_waiting();
  bool try_admit(Sequence& sequence);
  void grant_drafts();
  void plan_chunk(Sequence& sequence);
  void share_published(Sequence& sequence);
  bool features_are_ready(const Sequence& sequence, int32_t end) const;
  void plan_tiles(const Sequence& sequence);
  void add_rows(Sequence& sequence, int32_t num_rows);

  // The parts of commit().
  void note_outcome(const StepOutcome::Sampled& sampled);
  void settle_tiles(const StepOutcome& outcome);
  void advance(Sequence& sequence);
  void publish_full_pages(Sequence& sequence);
  void give_back_pages_after(Sequence& sequence, int32_t num_pages);

  bool is_past_next_tile(const Sequence& sequence) const;
  void set_computed(Sequence& sequence, int32_t num_computed);
  void need_tiles(const Sequence& sequence);
  void stop(Sequence& sequence);
  void preempt(Sequence& sequence);
  Sequence* find(SequenceId id);

  void check_pages() const;
  void check_tiles() const;
  void check_sequence(const Sequence& sequence) const;

  const SchedulerOptions options_;
  const int32_t max_tokens_;  // of one sequence, by context and pages
  PagePool pages_;
  PrefixCache prefixes_;
  TileTable tiles_;
  std::map<SequenceId, Sequence> sequences_;
  std::vector<Sequence*> waiting_, running_;  // oldest first
  StepPlan plan_;
  bool under_way_ = false;  // between plan() and commit()
  bool forked_ = false;     // since plan()
  SequenceId next_id_ = 0;
  Counters counters_;
  std::vector<PageId> found_;  // scratch of try_admit
};

}  // namespace idefics
