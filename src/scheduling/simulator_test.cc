// Random schedules against a model of what the pages hold.
//
// The engine of this test computes no attention. Writing a row, it puts into the row's slot what the row's key and
// value would depend on: a hash of all tokens of the sequence up to there, and the position. Before it believes a
// sampled token it looks at every slot the row attends to. A stale page, a page shared or copied wrongly, a prefix
// found for the wrong tokens, a rejected draft that is read: each shows as a slot with another history.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <map>
#include <random>
#include <set>
#include <stdexcept>

#include "idefics/error.h"
#include "scheduling/scheduler.h"

namespace idefics {
namespace {

constexpr int kSchedules = 10000;

// The seed for those failures that abort (IDEFICS_CHECK).
char g_running[64];
void print_running(int) {
  const ssize_t ignored = write(STDERR_FILENO, g_running, sizeof g_running);
  static_cast<void>(ignored);
}

void require(bool condition, const char* what) {
  if (!condition) throw std::runtime_error(what);
}

uint64_t mix(uint64_t a, uint64_t b) {
  uint64_t x = a * 0x9e3779b97f4a7c15u + b + 0x632be59bd9b4e019u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

Key make_key(uint64_t name) {
  Key key{};
  std::memcpy(key.data(), &name, sizeof name);
  return key;
}

struct Random {
  explicit Random(uint64_t seed) : bits(seed) {}
  int in(int low, int high) { return low + static_cast<int>(bits() % static_cast<uint64_t>(high - low + 1)); }
  bool chance(double p) { return static_cast<double>(bits() >> 11) * 0x1p-53 < p; }
  std::mt19937_64 bits;
};

// What happened in all schedules; a simulation that never meets a case proves nothing about it.
struct Coverage {
  int64_t steps = 0, rows = 0, requests = 0, refused = 0, finished = 0, cancelled = 0, cancelled_mid_step = 0,
          preempted = 0, copies = 0, forks = 0, hits = 0, hits_inside_tiles = 0, drafts = 0, rejected = 0, tiles = 0,
          tiles_from_cache = 0, held = 0, late = 0, abandoned = 0, full_pools = 0;
};

// A request as its client sees it.
struct Client {
  std::vector<uint64_t> histories;  // after each token
  int num_prompt = 0, max_new = 0, num_answers = 1;
  uint64_t salt = 0;  // chooses the tokens after the prompt
  bool gives_keys = true, eager_end = false;
  std::vector<SequenceTile> tiles;
  std::vector<BlockKey> keys;
  std::vector<uint64_t> drafts;

  int size() const { return static_cast<int>(histories.size()); }
  uint64_t history() const { return histories.empty() ? 0 : histories.back(); }
  void push(uint64_t token) { histories.push_back(mix(history(), token)); }
  uint64_t next_token() const { return mix(history(), salt) % 50; }
  void update_keys(int page_size) {
    while (gives_keys && std::ssize(keys) < size() / page_size) {
      keys.push_back(make_key(histories[(keys.size() + 1) * static_cast<size_t>(page_size) - 1]));
    }
  }
};

class Simulation {
 public:
  Simulation(uint64_t seed, Coverage& coverage)
      : random_(seed),
        coverage_(coverage),
        options_(choose_options()),
        scheduler_(options_, [this](const TileKey& key) { return find_features(key); }),
        slots_(static_cast<size_t>(options_.num_pages * options_.page_size)) {
    arrivals_left_ = random_.in(1, random_.chance(0.1) ? 30 : 10);
    arrival_rate_ = random_.chance(0.3) ? 1 : 0.2;
    cancel_rate_ = random_.chance(0.5) ? 0 : 0.03;
    draft_rate_ = random_.chance(0.4) ? 0 : 0.6;
    abandon_rate_ = random_.chance(0.7) ? 0 : 0.1;
    hold_rate_ = random_.chance(0.6) ? 0 : 0.3;
    numbers_arrivals_ = random_.chance(0.5);
    families_ = random_.in(1, 4);
  }

  // A digest of all plans.
  uint64_t run() {
    while (arrivals_left_ > 0 || scheduler_.has_work()) {
      while (arrivals_left_ > 0 && random_.chance(arrival_rate_)) arrive();
      maybe_cancel();
      release_tiles();
      scheduler_.check_invariants();
      if (scheduler_.has_work()) step();
      require(steps_ <= most_steps_, "more steps than the work allows: somebody starves");
    }
    require(clients_.empty(), "a request never ended");
    require(features_.empty(), "features that nobody needs were not dropped");
    require(scheduler_.pages().num_available() == options_.num_pages, "a page leaked");
    coverage_.hits += scheduler_.counters().cached_tokens;
    coverage_.preempted += scheduler_.counters().preemptions;
    return digest_;
  }

 private:
  struct Slot {
    uint64_t history = 0;
    int position = -1;
  };

  SchedulerOptions choose_options() {
    SchedulerOptions o{};
    const int size = random_.in(0, 3);
    o.num_pages = size == 0 ? 3 : size == 1 ? random_.in(3, 8) : size == 2 ? random_.in(6, 20) : random_.in(20, 80);
    o.page_size = random_.chance(0.1) ? 1 : random_.in(2, 8);
    o.max_len = random_.in(4, 80);
    o.max_sequences = random_.in(1, 6);
    o.max_rows = o.max_sequences + (random_.chance(0.5) ? random_.in(0, 4) : random_.in(0, 30));
    o.max_tiles = random_.in(1, 4);
    o.tile_tokens = random_.in(1, 7);
    return o;
  }

  // ---- clients ----

  // Requests of one family begin alike and part somewhere.
  Client make_client() {
    Client client;
    const auto family = static_cast<uint64_t>(random_.in(1, families_));
    const int most = std::min(options_.max_len, options_.num_pages * options_.page_size);
    const int wanted = random_.in(1, random_.chance(0.1) ? 2 * most : most), parting = random_.in(0, most);
    while (client.size() < wanted) {
      const auto position = static_cast<uint64_t>(client.size());
      const uint64_t choice = client.size() < parting ? mix(family, position) : random_.bits();
      if (choice % 5 == 0) {
        const uint64_t tile = 1 + (choice >> 8) % 6;
        client.tiles.push_back({client.size(), make_key(tile)});
        for (int i = 0; i < options_.tile_tokens; ++i) client.push(1000 + tile);
      } else {
        client.push(choice >> 8);
      }
    }
    client.num_prompt = client.size();
    client.max_new = random_.in(1, 30);
    client.num_answers = random_.chance(0.2) ? random_.in(2, 4) : 1;
    client.gives_keys = random_.chance(0.9);
    client.eager_end = random_.chance(0.3);
    client.update_keys(options_.page_size);
    return client;
  }

  void arrive() {
    --arrivals_left_;
    ++coverage_.requests;
    Client client = make_client();
    std::vector<BlockKey> keys = client.keys;
    if (random_.chance(0.1)) keys.resize(keys.size() / 2);
    const bool fits = client.num_prompt < std::min(options_.max_len, options_.num_pages * options_.page_size);
    std::optional<int64_t> arrival;
    if (numbers_arrivals_) {
      arrival = 10 * ++arrivals_;
      if (random_.chance(0.3)) {  // others overtook it on their way here
        *arrival -= random_.in(1, 60);
        ++coverage_.late;
      }
    }
    try {
      const auto [id, max_new] = scheduler_.submit({client.num_prompt, client.max_new, client.tiles, keys, arrival});
      require(fits && max_new >= 1 && max_new <= client.max_new, "admitted what cannot fit");
      client.max_new = max_new;
      add_client(id, client);
    } catch (const Error&) {
      require(!fits, "refused what fits");
      ++coverage_.refused;
    }
  }

  void add_client(SequenceId id, const Client& client) {
    require(clients_.emplace(id, client).second, "a sequence id was used twice");
    most_steps_ += 2 * (client.num_prompt + client.max_new + std::ssize(client.tiles));
  }

  void end_client(SequenceId id) { require(clients_.erase(id) == 1, "a request ended twice"); }

  bool maybe_cancel() {
    if (clients_.empty() || !random_.chance(cancel_rate_)) return false;
    auto it = clients_.begin();
    std::advance(it, random_.in(0, static_cast<int>(clients_.size()) - 1));
    const SequenceId id = it->first;
    require(scheduler_.cancel(id), "a live sequence could not be cancelled");
    require(!scheduler_.cancel(id), "cancelled twice");
    end_client(id);
    ++coverage_.cancelled;
    return true;
  }

  // ---- a step ----

  void step() {
    ++steps_, ++coverage_.steps;
    const StepPlan& plan = scheduler_.plan();
    scheduler_.check_invariants();
    require(!plan.empty() || clients_.empty() || !held_.empty(), "nothing to do although somebody waits");
    note(plan);
    cancel_mid_step();
    run(plan);
    cancel_mid_step();
    if (random_.chance(abandon_rate_)) {
      scheduler_.abandon();
      ++most_steps_, ++coverage_.abandoned;
    } else {
      const StepOutcome outcome = decide(plan);
      cancel_mid_step();
      scheduler_.commit(outcome);
      settle(outcome);
    }
    scheduler_.check_invariants();
    require(scheduler_.num_running() + scheduler_.num_waiting() == std::ssize(clients_), "a request got lost");
  }

  void cancel_mid_step() {
    if (!maybe_cancel()) return;
    ++coverage_.cancelled_mid_step;
    scheduler_.check_invariants();
  }

  void note(const StepPlan& plan) {
    for (const StepPlan::Rows& r : plan.rows) {
      digest_ = mix(digest_, static_cast<uint64_t>(r.sequence * 1000 + r.num_rows));
      for (const PageId page : plan.pages(r)) digest_ = mix(digest_, static_cast<uint64_t>(page));
    }
    for (const StepPlan::Tile& tile : plan.tiles) digest_ = mix(digest_, tile.key[0]);
    for (const TileKey& key : plan.dropped) digest_ = mix(digest_, key[0]);
    coverage_.rows += plan.num_rows;
    coverage_.full_pools += scheduler_.pages().num_available() == 0;
  }

  void run(const StepPlan& plan) {
    drop(plan);
    copy(plan);
    check_rows(plan);
    for (const StepPlan::Rows& r : plan.rows) write_rows(plan, r);
    for (const StepPlan::Rows& r : plan.rows) check_history(plan, r);
    check_tiles(plan);
  }

  void drop(const StepPlan& plan) {
    for (const TileKey& key : plan.dropped) {
      require(features_.erase(key) == 1, "features dropped that are not there");
      if (random_.chance(0.3)) cache_.insert(key);
    }
  }

  void copy(const StepPlan& plan) {
    const auto size = static_cast<size_t>(options_.page_size);
    for (const StepPlan::PageCopy& c : plan.copies) {
      std::copy_n(&slots_[static_cast<size_t>(c.from) * size], size, &slots_[static_cast<size_t>(c.to) * size]);
      ++coverage_.copies;
    }
  }

  void check_rows(const StepPlan& plan) const {
    int rows = 0;
    std::set<SequenceId> seen;
    for (const StepPlan::Rows& r : plan.rows) {
      require(r.first_row == rows && r.num_rows >= 1 && r.num_drafts < r.num_rows, "rows are numbered wrongly");
      rows += r.num_rows;
      require(seen.insert(r.sequence).second, "a sequence twice in one step");
      require(r.num_pages == (r.context + r.num_rows + options_.page_size - 1) / options_.page_size, "number of pages");
    }
    require(rows == plan.num_rows && rows <= options_.max_rows, "too many rows");
    require(std::ssize(plan.rows) <= options_.max_sequences, "too many sequences");
    require(std::ssize(plan.tiles) <= options_.max_tiles, "too many tiles");
  }

  Slot& slot(const StepPlan& plan, const StepPlan::Rows& r, int position) {
    const PageId page = plan.pages(r)[static_cast<size_t>(position / options_.page_size)];
    return slots_[static_cast<size_t>(page * options_.page_size + position % options_.page_size)];
  }

  // Also for sequences cancelled since plan(): the engine would compute their rows all the same.
  void write_rows(const StepPlan& plan, const StepPlan::Rows& r) {
    const auto it = clients_.find(r.sequence);
    if (it == clients_.end()) {
      for (int i = 0; i < r.num_rows; ++i) slot(plan, r, r.context + i) = {};
      return;
    }
    Client& client = it->second;
    const int known = r.num_rows - r.num_drafts;
    require(r.context + known <= client.size() && r.num_drafts <= std::ssize(client.drafts), "rows without tokens");
    require(r.samples == (r.context + known == client.size()), "logits of the last token are wanted, and no others");
    require(r.num_drafts == 0 || known == 1, "drafts follow a single row");
    uint64_t history = 0;
    for (int i = 0; i < r.num_rows; ++i) {
      const int position = r.context + i;
      history = i < known ? client.histories[static_cast<size_t>(position)]
                          : mix(history, client.drafts[static_cast<size_t>(i - known)]);
      slot(plan, r, position) = {history, position};
    }
    check_features(client, r.context, r.context + known);
  }

  void check_features(const Client& client, int begin, int end) {
    for (const SequenceTile& tile : client.tiles) {
      if (tile.first >= end || tile.first + options_.tile_tokens <= begin) continue;
      require(features_.contains(tile.key), "an image token without features");
      coverage_.hits_inside_tiles += tile.first < begin && begin % options_.page_size == 0;
    }
  }

  // After all rows of the step were written: nobody may have written over anybody.
  void check_history(const StepPlan& plan, const StepPlan::Rows& r) {
    const auto it = clients_.find(r.sequence);
    if (it == clients_.end()) return;
    const int end = r.context + r.num_rows - r.num_drafts;
    for (int position = 0; position < end; ++position) {
      const Slot& s = slot(plan, r, position);
      require(s.position == position, "a row sees another position's keys");
      require(s.history == it->second.histories[static_cast<size_t>(position)], "a row sees another history");
    }
  }

  void check_tiles(const StepPlan& plan) const {
    std::set<TileKey> seen;
    for (const StepPlan::Tile& tile : plan.tiles) {
      require(!features_.contains(tile.key) && seen.insert(tile.key).second, "a tile is encoded twice");
      require(!held_.contains(tile.sequence), "a tile of a sequence whose tiles are on hold");
      const auto it = clients_.find(tile.sequence);
      if (it == clients_.end()) continue;
      require(it->second.tiles.at(static_cast<size_t>(tile.tile)).key == tile.key, "another tile's key");
    }
  }

  bool find_features(const TileKey& key) {
    require(!features_.contains(key), "asked for features that are there");
    if (cache_.erase(key) == 0) return false;
    features_.insert(key);
    ++coverage_.tiles_from_cache;
    return true;
  }

  // ---- its outcome ----

  StepOutcome decide(const StepPlan& plan) {
    StepOutcome outcome;
    for (const StepPlan::Rows& r : plan.rows) {
      const auto it = clients_.find(r.sequence);
      if (!r.samples || it == clients_.end()) continue;
      const int others = r.num_drafts > 0 ? 0 : std::exchange(it->second.num_answers, 1) - 1;
      const Client parent = it->second;
      outcome.sampled.push_back(sample(r.sequence, r.num_drafts));
      if (others == 0) continue;
      uint64_t salt = 0;
      for (const SequenceId id : scheduler_.fork(r.sequence, others)) {
        add_client(id, parent);
        clients_.at(id).salt = ++salt;
        outcome.sampled.push_back(sample(id, 0));
        ++coverage_.forks;
      }
      abandon_rate_ = 0;  // not allowed after a fork
      scheduler_.check_invariants();
    }
    std::shuffle(outcome.sampled.begin(), outcome.sampled.end(), random_.bits);
    for (const StepPlan::Tile& tile : plan.tiles) {
      if (random_.chance(hold_rate_)) {
        hold_tiles(tile.sequence);
      } else if (random_.chance(0.1)) {
        ++most_steps_;  // the caller was interrupted, or has lost the pixels of a cancelled request
      } else {
        outcome.encoded.push_back(tile.key);
        features_.insert(tile.key);
        ++coverage_.tiles;
      }
    }
    return outcome;
  }

  // For some steps, as when its pixels have to be brought.
  void hold_tiles(SequenceId id) {
    const int steps = random_.in(1, 5);
    held_[id] = steps_ + steps;
    most_steps_ += steps + 1;
    scheduler_.hold_tiles(id, true);
    ++coverage_.held;
  }

  void release_tiles() {
    for (auto it = held_.begin(); it != held_.end();) {
      if (it->second > steps_) {
        ++it;
        continue;
      }
      scheduler_.hold_tiles(it->first, false);
      it = held_.erase(it);
    }
  }

  StepOutcome::Sampled sample(SequenceId id, int num_drafts) {
    Client& client = clients_.at(id);
    const int most = client.num_prompt + client.max_new;
    StepOutcome::Sampled sampled{.sequence = id, .num_tokens = 0};
    while (true) {
      const uint64_t token = client.next_token();
      client.push(token);
      ++sampled.num_tokens;
      sampled.finished = client.size() == most || (client.eager_end && token % 8 == 0);
      const int i = sampled.num_tokens - 1;
      if (sampled.finished || i == num_drafts) break;
      ++coverage_.drafts;
      if (client.drafts[static_cast<size_t>(i)] != token) {
        ++coverage_.rejected;
        break;
      }
    }
    guess(client);
    client.update_keys(options_.page_size);
    sampled.num_drafts = static_cast<int32_t>(client.drafts.size());
    sampled.keys = client.keys;
    return sampled;
  }

  // Right for a while, then wrong.
  void guess(Client& client) {
    client.drafts.clear();
    if (!random_.chance(draft_rate_)) return;
    Client ahead = client;
    const int count = random_.in(0, 9), right = random_.in(0, count);
    for (int i = 0; i < count; ++i) {
      const uint64_t token = ahead.next_token();
      ahead.push(token);
      client.drafts.push_back(i < right ? token : token + 1);
    }
  }

  void settle(const StepOutcome& outcome) {
    for (const StepOutcome::Sampled& s : outcome.sampled) {
      if (!s.finished || !clients_.contains(s.sequence)) continue;
      require(!scheduler_.cancel(s.sequence), "a finished sequence is still there");
      end_client(s.sequence);
      ++coverage_.finished;
    }
  }

  Random random_;
  Coverage& coverage_;
  const SchedulerOptions options_;
  Scheduler scheduler_;
  std::vector<Slot> slots_;
  std::map<SequenceId, Client> clients_;
  std::set<TileKey> features_, cache_;  // there; left to a cache that may be asked for them
  std::map<SequenceId, int64_t> held_;  // until which step
  int arrivals_left_, families_;
  int64_t arrivals_ = 0;
  bool numbers_arrivals_;
  double arrival_rate_, cancel_rate_, draft_rate_, abandon_rate_, hold_rate_;
  int64_t steps_ = 0, most_steps_ = 10;
  uint64_t digest_ = 0;
};

uint64_t run_schedule(uint64_t seed, Coverage& coverage) {
  std::memset(g_running, ' ', sizeof g_running);
  fmt::format_to_n(g_running, sizeof g_running - 1, "simulator: schedule with seed {}", seed);
  g_running[sizeof g_running - 1] = '\n';
  return Simulation(seed, coverage).run();
}

TEST(Simulator, every_request_ends_and_every_row_sees_its_own_history) {
  signal(SIGABRT, print_running);
  Coverage c;
  for (uint64_t seed = 1; seed <= kSchedules; ++seed) {
    try {
      run_schedule(seed, c);
    } catch (const std::exception& e) {
      FAIL() << "seed " << seed << ": " << e.what();
    }
  }
  signal(SIGABRT, SIG_DFL);
  fmt::print("{} steps, {} rows, {} requests, {} refused, {} finished, {} cancelled ({} inside a step)\n", c.steps,
             c.rows, c.requests, c.refused, c.finished, c.cancelled, c.cancelled_mid_step);
  fmt::print("{} preempted, {} copies, {} forks, {} tokens found, {} of {} drafts rejected, {} steps abandoned\n",
             c.preempted, c.copies, c.forks, c.hits, c.rejected, c.drafts, c.abandoned);
  fmt::print("{} tiles encoded, {} from a cache, {} put on hold, {} chunks begin inside a tile\n", c.tiles,
             c.tiles_from_cache, c.held, c.hits_inside_tiles);
  fmt::print("{} requests came late, {} steps with a full pool\n", c.late, c.full_pools);
  for (const int64_t count : {c.refused, c.finished, c.cancelled, c.cancelled_mid_step, c.preempted, c.copies, c.forks,
                              c.hits, c.hits_inside_tiles, c.drafts, c.rejected, c.tiles, c.tiles_from_cache, c.held,
                              c.late, c.abandoned, c.full_pools}) {
    EXPECT_GE(count, kSchedules / 10);
  }
}

TEST(Simulator, the_same_calls_give_the_same_plans) {
  Coverage coverage;
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    EXPECT_EQ(run_schedule(seed, coverage), run_schedule(seed, coverage)) << "seed " << seed;
  }
}

}  // namespace
}  // namespace idefics
