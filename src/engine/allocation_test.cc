// Nothing is allocated between one token and the next.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <new>
#include <numeric>

#include "engine/engine_parts.h"
#include "engine/sampler.h"

namespace {

std::atomic<bool> counting{false};
std::atomic<int> allocations{0};

void* allocate(std::size_t bytes, std::size_t alignment) {
  if (counting) ++allocations;
  void* memory = std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

}  // namespace

void* operator new(std::size_t bytes) { return allocate(bytes, alignof(std::max_align_t)); }
void* operator new(std::size_t bytes, std::align_val_t alignment) {
  return allocate(bytes, static_cast<std::size_t>(alignment));
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }

namespace idefics {
namespace {

TEST(Allocation, is_counted) {
  counting = true;
  ::operator delete(::operator new(8));
  counting = false;
  EXPECT_EQ(allocations.exchange(0), 1);
}

TEST(Allocation, a_step_and_a_choice_allocate_nothing) {
  Engine engine = Engine::load(std::filesystem::path(IDEFICS_SOURCE_DIR) / "models/tiny-cards", {.num_threads = 2});
  engine.generate({.messages = {{"user", {ContentPart::of_text("Hello")}}}, .sampling = {.max_tokens = 1}});
  StepRunner& runner = engine.parts().runner;  // the engine's threads are there and sleep
  SamplingParams params;
  params.repetition_penalty = 1.1;
  params.presence_penalty = 0.5;
  SamplerScratch scratch(engine.config().text_config.vocab_size);
  Sampler sampler(params, {}, 1, scratch);
  std::vector<int32_t> ids(200);
  std::iota(ids.begin(), ids.end(), 1);

  // A prompt of 70 tokens, and then tokens one by one over the border of a page.
  StepPlan plan;
  plan.page_ids = {2, 0};
  plan.rows.push_back({});
  const auto run = [&](int32_t context, int32_t num_rows) {
    plan.num_rows = plan.rows[0].num_rows = num_rows;
    plan.rows[0].context = context;
    plan.rows[0].num_pages = (context + num_rows + 127) / 128;
    const RowTokens tokens{ids, {}, {}};
    runner.run_rows(plan, std::span(&tokens, 1));
    const int32_t last = num_rows - 1;
    const Matrix<float> logits = runner.logits(std::span(&last, 1));
    sampler.choose(ids, {}, {logits.row(0), static_cast<size_t>(logits.cols())});
  };
  counting = true;
  run(0, 70);
  for (int32_t i = 70; i < 170; ++i) run(i, 1);
  counting = false;
  EXPECT_EQ(allocations, 0);
}

}  // namespace
}  // namespace idefics
