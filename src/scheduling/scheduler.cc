#include "scheduling/scheduler.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/check.h"
#include "idefics/error.h"

namespace idefics {

namespace {

auto place_of(const std::vector<Sequence*>& list, const Sequence& sequence) {
  return std::lower_bound(list.begin(), list.end(), sequence.age,
                          [](const Sequence* a, const Sequence::Age& age) { return a->age < age; });
}

void insert(std::vector<Sequence*>& list, Sequence& sequence) { list.insert(place_of(list, sequence), &sequence); }

void remove(std::vector<Sequence*>& list, const Sequence& sequence) {
  const auto it = place_of(list, sequence);
  IDEFICS_CHECK(it != list.end() && *it == &sequence);
  list.erase(it);
}

void leave_step(Sequence& sequence) {
  sequence.planned_rows = sequence.planned_drafts = 0;
  sequence.samples = false;
  sequence.sampled = nullptr;
}

int32_t most_tokens(const SchedulerOptions& o) {
  return static_cast<int32_t>(std::min<int64_t>(o.max_len, int64_t{o.num_pages} * o.page_size));
}

}  // namespace

Scheduler::Scheduler(const SchedulerOptions& options, FindFeatures find_features)
    : options_(options),
      max_tokens_(most_tokens(options)),
      pages_(options.num_pages),
      prefixes_(options.num_pages),
      tiles_(std::move(find_features)) {
  IDEFICS_CHECK(options.page_size > 0 && options.max_len > 0 && options.max_sequences > 0);
  IDEFICS_CHECK(options.max_rows >= options.max_sequences);
  IDEFICS_CHECK(options.max_tiles > 0 && options.tile_tokens > 0);
}

int32_t Scheduler::pages_for(int64_t tokens) const {
  return static_cast<int32_t>((tokens + options_.page_size - 1) / options_.page_size);
}

std::optional<PageId> Scheduler::take_page() {
  const std::optional<PageId> page = pages_.take();
  if (page) prefixes_.forget(*page);
  return page;
}

// ---- submit, cancel, fork ----

Scheduler::Submitted Scheduler::submit(SequenceRequest request) {
  check_request(request);
  refuse_what_never_fits(request);
  const int32_t max_new = std::min(request.max_new_tokens, max_tokens_ - request.num_prompt_tokens);
  waiting_.reserve(waiting_.size() + 1);  // without memory for its place there is no sequence either
  const SequenceId id = next_id_++;
  Sequence& sequence = sequences_[id];
  sequence.age = {request.arrival.value_or(id), id};
  sequence.max_tokens = request.num_prompt_tokens + max_new;
  sequence.num_known = request.num_prompt_tokens;
  sequence.tiles = std::move(request.tiles);
  sequence.keys = std::move(request.keys);
  insert(waiting_, sequence);
  return {id, max_new};
}

void Scheduler::check_request(const SequenceRequest& request) const {
  IDEFICS_CHECK(request.num_prompt_tokens > 0 && request.max_new_tokens > 0);
  IDEFICS_CHECK(std::ssize(request.keys) <= request.num_prompt_tokens / options_.page_size);
  int64_t end = 0;
  for (const SequenceTile& tile : request.tiles) {
    IDEFICS_CHECK(tile.first >= end);
    end = int64_t{tile.first} + options_.tile_tokens;
  }
  IDEFICS_CHECK(end <= request.num_prompt_tokens);
}

void Scheduler::refuse_what_never_fits(const SequenceRequest& request) const {
  const int32_t length = request.num_prompt_tokens;
  if (length < max_tokens_) return;
  const int64_t tiles = std::ssize(request.tiles);
  const std::string prompt =
      fmt::format("prompt: {} tokens ({} of them for {} image tiles)", length, tiles * options_.tile_tokens, tiles);
  const char* advice = "shorten the text, send fewer or smaller images, or lower max_tiles";
  if (length >= options_.max_len) {
    throw Error(ErrorCode::kContextLengthExceeded,
                fmt::format("{} leave no room in the context of {}; {}", prompt, options_.max_len, advice));
  }
  throw Error(ErrorCode::kContextLengthExceeded,
              fmt::format("{} leave no room in the KV cache of {} tokens ({} pages of {}); {}, or enlarge the cache",
                          prompt, max_tokens_, options_.num_pages, options_.page_size, advice));
}

bool Scheduler::cancel(SequenceId id) {
  Sequence* sequence = find(id);
  if (!sequence) return false;
  // Pages may be freed while a step still writes to them: nobody takes a page before the next plan().
  if (sequence->is_running()) {
    stop(*sequence);
  } else {
    remove(waiting_, *sequence);
  }
  sequences_.erase(id);
  return true;
}

std::vector<SequenceId> Scheduler::fork(SequenceId parent_id, int32_t count) {
  const Sequence* parent = find(parent_id);
  IDEFICS_CHECK(under_way_ && parent && parent->samples && parent->planned_drafts == 0 && count >= 0);
  forked_ = true;
  std::vector<SequenceId> ids;
  for (int32_t i = 0; i < count; ++i) {
    const SequenceId id = next_id_++;
    Sequence& child = sequences_.emplace(id, *parent).first->second;
    child.age.id = id;
    child.tiles_on_hold = false;
    for (const PageId page : child.pages) pages_.share(page);
    need_tiles(child);
    insert(running_, child);
    ids.push_back(id);
  }
  return ids;
}

void Scheduler::hold_tiles(SequenceId id, bool hold) {
  if (Sequence* sequence = find(id)) sequence->tiles_on_hold = hold;
}

Sequence* Scheduler::find(SequenceId id) {
  const auto it = sequences_.find(id);
  return it == sequences_.end() ? nullptr : &it->second;
}

// ---- plan ----

const StepPlan& Scheduler::plan() {
  IDEFICS_CHECK(!under_way_);
  under_way_ = true;
  forked_ = false;
  plan_.clear();
  while (num_running() > options_.max_sequences) preempt(*running_.back());  // forks
  make_room_for_decoding();
  admit_waiting();
  grant_drafts();
  for (Sequence* s : running_) {
    if (s->state == Sequence::State::kDecode) add_rows(*s, 1 + s->planned_drafts);
  }
  for (Sequence* s : running_) {
    if (s->state == Sequence::State::kPrefill) plan_chunk(*s);
  }
  for (const Sequence* s : running_) plan_tiles(*s);
  tiles_.take_unused(plan_.dropped);
  return plan_;
}

void Scheduler::make_room_for_decoding() {
  // Preemption takes from the back, so it never meets a sequence that was passed already.
  for (size_t i = 0; i < running_.size(); ++i) {
    if (running_[i]->state == Sequence::State::kDecode) make_next_slot_writable(*running_[i]);
  }
}

// A page for the next token that is this sequence's alone, at the cost of younger sequences; false when it was the
// youngest and has been preempted itself.
bool Scheduler::make_next_slot_writable(Sequence& sequence) {
  const auto index = static_cast<size_t>(sequence.num_computed / options_.page_size);
  while (true) {
    const bool shared = index < sequence.pages.size();
    if (shared && pages_.num_owners(sequence.pages[index]) == 1) return true;
    if (const std::optional<PageId> page = take_page()) {
      if (!shared) {
        sequence.pages.push_back(*page);
        return true;
      }
      plan_.copies.push_back({sequence.pages[index], *page});
      pages_.give_back(sequence.pages[index]);
      sequence.pages[index] = *page;
      return true;
    }
    Sequence& youngest = *running_.back();
    preempt(youngest);
    if (&youngest == &sequence) return false;
  }
}

void Scheduler::admit_waiting() {
  while (!waiting_.empty() && num_running() < options_.max_sequences) {
    if (!try_admit(*waiting_.front())) return;
  }
}

bool Scheduler::try_admit(Sequence& sequence) {
  // One token at least is left to compute: it gives the logits.
  const auto most = std::min(sequence.keys.size(), static_cast<size_t>((sequence.num_known - 1) / options_.page_size));
  int32_t num_cached = 0;
  found_.clear();
  while (found_.size() < most) {
    const std::optional<PageId> page = prefixes_.find(sequence.keys[found_.size()]);
    if (!page) break;
    num_cached += pages_.num_owners(*page) == 0;
    found_.push_back(*page);
  }
  const int32_t num_new = pages_for(sequence.num_known) - static_cast<int32_t>(found_.size());
  // One page stays for each running sequence, so that the newcomer is not thrown out at their next page boundary.
  if (pages_.num_available() - num_cached < num_new + num_running()) return false;

  for (const PageId page : found_) pages_.share(page);
  sequence.pages.assign(found_.begin(), found_.end());
  for (int32_t i = 0; i < num_new; ++i) sequence.pages.push_back(take_page().value());
  remove(waiting_, sequence);
  insert(running_, sequence);
  sequence.state = Sequence::State::kPrefill;
  sequence.num_published = static_cast<int32_t>(found_.size());
  sequence.num_computed = sequence.num_published * options_.page_size;
  while (sequence.next_tile < std::ssize(sequence.tiles) &&
         sequence.tiles[static_cast<size_t>(sequence.next_tile)].first + options_.tile_tokens <=
             sequence.num_computed) {
    ++sequence.next_tile;
  }
  need_tiles(sequence);
  ++counters_.admissions;
  counters_.cached_tokens += sequence.num_computed;
  return true;
}

// Drafts never preempt and never take the last row of a prompt.
void Scheduler::grant_drafts() {
  const bool prompts = std::any_of(running_.begin(), running_.end(),
                                   [](const Sequence* s) { return s->state == Sequence::State::kPrefill; });
  int32_t rows = (options_.max_rows - num_running()) / (prompts ? 2 : 1);
  for (Sequence* s : running_) {
    if (s->state != Sequence::State::kDecode) continue;
    const int32_t most = std::min({s->num_drafts, rows, s->max_tokens - s->num_known - 1});
    while (s->planned_drafts < most) {
      if (pages_for(s->num_known + s->planned_drafts + 1) > std::ssize(s->pages)) {
        const std::optional<PageId> page = take_page();
        if (!page) break;
        s->pages.push_back(*page);
      }
      ++s->planned_drafts;
    }
    rows -= s->planned_drafts;
  }
}

void Scheduler::plan_chunk(Sequence& sequence) {
  share_published(sequence);
  const int32_t rows = options_.max_rows - plan_.num_rows;
  const int32_t end = sequence.num_computed + std::min(rows, sequence.num_known - sequence.num_computed);
  if (end > sequence.num_computed && features_are_ready(sequence, end)) add_rows(sequence, end - sequence.num_computed);
}

// Pages that another sequence published while this one was on its way.
void Scheduler::share_published(Sequence& sequence) {
  while (sequence.num_computed % options_.page_size == 0 &&
         sequence.num_computed + options_.page_size < sequence.num_known) {
    const auto index = static_cast<size_t>(sequence.num_computed / options_.page_size);
    if (index >= sequence.keys.size()) return;
    const std::optional<PageId> page = prefixes_.find(sequence.keys[index]);
    if (!page) return;
    pages_.share(*page);
    pages_.give_back(sequence.pages[index]);
    sequence.pages[index] = *page;
    ++sequence.num_published;
    set_computed(sequence, sequence.num_computed + options_.page_size);
    counters_.cached_tokens += options_.page_size;
  }
}

// A chunk waits for all its tiles: every chunk reads all weights, so few large ones are cheaper than one after each
// tile.
bool Scheduler::features_are_ready(const Sequence& sequence, int32_t end) const {
  for (auto i = static_cast<size_t>(sequence.next_tile); i < sequence.tiles.size(); ++i) {
    const SequenceTile& tile = sequence.tiles[i];
    if (tile.first >= end) break;
    if (!tiles_.is_ready(tile.key)) return false;
  }
  return true;
}

void Scheduler::plan_tiles(const Sequence& sequence) {
  if (sequence.tiles_on_hold) return;
  const int64_t end = int64_t{sequence.num_computed} + sequence.planned_rows + options_.max_rows;
  for (auto i = static_cast<size_t>(sequence.next_tile); i < sequence.tiles.size(); ++i) {
    const SequenceTile& tile = sequence.tiles[i];
    if (tile.first >= end || std::ssize(plan_.tiles) == options_.max_tiles) return;
    if (!tiles_.is_missing(tile.key)) continue;
    tiles_.mark_planned(tile.key);
    plan_.tiles.push_back({tile.key, sequence.age.id, static_cast<int32_t>(i)});
  }
}

void Scheduler::add_rows(Sequence& sequence, int32_t num_rows) {
  sequence.planned_rows = num_rows;
  sequence.samples = sequence.num_computed + num_rows >= sequence.num_known;
  const int32_t num_pages = pages_for(sequence.num_computed + num_rows);
  IDEFICS_CHECK(num_pages <= std::ssize(sequence.pages));
  plan_.rows.push_back({.sequence = sequence.age.id,
                        .first_row = plan_.num_rows,
                        .num_rows = num_rows,
                        .context = sequence.num_computed,
                        .num_drafts = sequence.planned_drafts,
                        .samples = sequence.samples,
                        .first_page = static_cast<int32_t>(plan_.page_ids.size()),
                        .num_pages = num_pages});
  plan_.page_ids.insert(plan_.page_ids.end(), sequence.pages.begin(), sequence.pages.begin() + num_pages);
  plan_.num_rows += num_rows;
}

// ---- commit ----

void Scheduler::commit(const StepOutcome& outcome) {
  IDEFICS_CHECK(under_way_);
  settle_tiles(outcome);
  for (const StepOutcome::Sampled& sampled : outcome.sampled) note_outcome(sampled);
  // In the order of age and not of the outcome; a finished sequence leaves the list.
  for (size_t i = 0; i < running_.size();) {
    Sequence& sequence = *running_[i];
    const bool finished = sequence.sampled && sequence.sampled->finished;
    advance(sequence);
    if (finished) {
      cancel(sequence.age.id);
    } else {
      ++i;
    }
  }
  under_way_ = false;
}

void Scheduler::abandon() {
  IDEFICS_CHECK(under_way_ && !forked_);
  settle_tiles({});
  for (Sequence* s : running_) {
    leave_step(*s);
    if (s->state == Sequence::State::kDecode) give_back_pages_after(*s, pages_for(s->num_known));
  }
  under_way_ = false;
}

void Scheduler::settle_tiles(const StepOutcome& outcome) {
  for (const TileKey& key : outcome.encoded) tiles_.mark_ready(key);
  for (const StepPlan::Tile& tile : plan_.tiles) tiles_.mark_not_encoded(tile.key);
}

void Scheduler::note_outcome(const StepOutcome::Sampled& sampled) {
  Sequence* sequence = find(sampled.sequence);
  if (!sequence) return;  // cancelled
  IDEFICS_CHECK(sequence->samples && !sequence->sampled);
  IDEFICS_CHECK(sampled.num_tokens >= 1 && sampled.num_tokens <= 1 + sequence->planned_drafts);
  IDEFICS_CHECK(sampled.finished || sequence->num_known + sampled.num_tokens < sequence->max_tokens);
  IDEFICS_CHECK(sampled.num_drafts >= 0);
  IDEFICS_CHECK(std::ssize(sampled.keys) <= (sequence->num_known + sampled.num_tokens) / options_.page_size);
  sequence->sampled = &sampled;
}

void Scheduler::advance(Sequence& sequence) {
  IDEFICS_CHECK(sequence.samples == (sequence.sampled != nullptr));
  if (const StepOutcome::Sampled* sampled = sequence.sampled) {
    sequence.num_known += sampled->num_tokens;
    sequence.state = Sequence::State::kDecode;
    sequence.num_drafts = sampled->num_drafts;
    if (sampled->keys.size() > sequence.keys.size()) {
      sequence.keys.insert(sequence.keys.end(), sampled->keys.begin() + std::ssize(sequence.keys), sampled->keys.end());
    }
    set_computed(sequence, sequence.num_known - 1);
  } else {
    set_computed(sequence, sequence.num_computed + sequence.planned_rows);
  }
  leave_step(sequence);
  publish_full_pages(sequence);
  give_back_pages_after(sequence, pages_for(sequence.num_known));
}

void Scheduler::publish_full_pages(Sequence& sequence) {
  const int32_t full = std::min(static_cast<int32_t>(sequence.keys.size()), sequence.num_computed / options_.page_size);
  for (; sequence.num_published < full; ++sequence.num_published) {
    const auto i = static_cast<size_t>(sequence.num_published);
    if (prefixes_.publish(sequence.keys[i], sequence.pages[i])) pages_.keep(sequence.pages[i]);
  }
}

// The last page first, so that of a cached prefix the end is evicted before the beginning.
void Scheduler::give_back_pages_after(Sequence& sequence, int32_t num_pages) {
  while (std::ssize(sequence.pages) > num_pages) {
    pages_.give_back(sequence.pages.back());
    sequence.pages.pop_back();
  }
}

// ---- sequences ----

bool Scheduler::is_past_next_tile(const Sequence& sequence) const {
  if (sequence.next_tile == std::ssize(sequence.tiles)) return false;
  return sequence.tiles[static_cast<size_t>(sequence.next_tile)].first + options_.tile_tokens <= sequence.num_computed;
}

void Scheduler::set_computed(Sequence& sequence, int32_t num_computed) {
  sequence.num_computed = num_computed;
  while (is_past_next_tile(sequence)) {
    tiles_.remove_user(sequence.tiles[static_cast<size_t>(sequence.next_tile)].key);
    ++sequence.next_tile;
  }
}

void Scheduler::need_tiles(const Sequence& sequence) {
  for (auto i = static_cast<size_t>(sequence.next_tile); i < sequence.tiles.size(); ++i) {
    tiles_.add_user(sequence.tiles[i].key);
  }
}

// Takes a running sequence's pages and tiles away and forgets what was computed.
void Scheduler::stop(Sequence& sequence) {
  for (auto i = static_cast<size_t>(sequence.next_tile); i < sequence.tiles.size(); ++i) {
    tiles_.remove_user(sequence.tiles[i].key);
  }
  give_back_pages_after(sequence, 0);
  sequence.state = Sequence::State::kWaiting;
  sequence.num_computed = sequence.num_published = sequence.next_tile = sequence.num_drafts = 0;
  leave_step(sequence);
  remove(running_, sequence);
}

void Scheduler::preempt(Sequence& sequence) {
  IDEFICS_CHECK(num_running() > 1 && sequence.planned_rows == 0);
  stop(sequence);
  insert(waiting_, sequence);
  plan_.preempted.push_back(sequence.age.id);
  ++counters_.preemptions;
}

// ---- invariants ----

void Scheduler::check_invariants() const {
  pages_.check_invariants();
  prefixes_.check_invariants();
  IDEFICS_CHECK(waiting_.size() + running_.size() == sequences_.size());
  IDEFICS_CHECK(!under_way_ || forked_ || num_running() <= options_.max_sequences);
  const auto older = [](const Sequence* a, const Sequence* b) { return a->age < b->age; };
  IDEFICS_CHECK(std::is_sorted(waiting_.begin(), waiting_.end(), older));
  IDEFICS_CHECK(std::is_sorted(running_.begin(), running_.end(), older));
  for (const Sequence* s : waiting_) {
    IDEFICS_CHECK(!s->is_running() && s->pages.empty() && s->num_computed == 0 && s->next_tile == 0);
    IDEFICS_CHECK(s->planned_rows == 0 && !s->samples);
  }
  for (const Sequence* s : running_) check_sequence(*s);
  check_pages();
  check_tiles();
}

void Scheduler::check_sequence(const Sequence& s) const {
  IDEFICS_CHECK(s.is_running() && s.num_computed < s.num_known && s.num_known < s.max_tokens);
  IDEFICS_CHECK(s.max_tokens <= max_tokens_);
  IDEFICS_CHECK(s.state != Sequence::State::kDecode || s.num_computed == s.num_known - 1);
  IDEFICS_CHECK(std::ssize(s.pages) >= pages_for(s.num_computed + s.planned_rows));
  IDEFICS_CHECK(s.state != Sequence::State::kPrefill || std::ssize(s.pages) == pages_for(s.num_known));
  IDEFICS_CHECK(std::ssize(s.pages) <= pages_for(s.num_known + s.planned_drafts));
  IDEFICS_CHECK(under_way_ || (s.planned_rows == 0 && s.planned_drafts == 0));
  IDEFICS_CHECK(s.num_published == std::min(static_cast<int32_t>(s.keys.size()), s.num_computed / options_.page_size));
}

// Owners are counted right, and nobody writes to a page that is published or that others own, but for forks whose
// common rows were planned before they parted.
void Scheduler::check_pages() const {
  std::vector<int32_t> owners(static_cast<size_t>(pages_.num_pages())), writers(owners.size());
  for (const Sequence* s : running_) {
    for (size_t i = 0; i < s->pages.size(); ++i) {
      const auto page = static_cast<size_t>(s->pages[i]);
      const int64_t begin = static_cast<int64_t>(i) * options_.page_size, end = begin + options_.page_size;
      ++owners[page];
      writers[page] += s->num_computed < end && s->num_computed + s->planned_rows > begin;
      IDEFICS_CHECK(s->num_computed >= end || !prefixes_.contains(s->pages[i]));
    }
  }
  for (PageId page = 0; page < pages_.num_pages(); ++page) {
    const auto i = static_cast<size_t>(page);
    IDEFICS_CHECK(owners[i] == pages_.num_owners(page));
    IDEFICS_CHECK(prefixes_.contains(page) == pages_.is_kept(page));
    IDEFICS_CHECK(writers[i] <= 1 || forked_);
    IDEFICS_CHECK(writers[i] == 0 || writers[i] == owners[i]);
  }
}

void Scheduler::check_tiles() const {
  std::map<TileKey, int32_t> users;
  for (const Sequence* s : running_) {
    for (auto i = static_cast<size_t>(s->next_tile); i < s->tiles.size(); ++i) ++users[s->tiles[i].key];
  }
  for (const auto& [key, count] : users) IDEFICS_CHECK(tiles_.num_users(key) == count);
  IDEFICS_CHECK(tiles_.size() == users.size() || (tiles_.size() > users.size() && tiles_.has_unused()));
}

}  // namespace idefics
