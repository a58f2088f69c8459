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
  Engine::Parts& parts = engine.parts();
  const Network& network = *parts.network;
  SamplingParams params;
  params.repetition_penalty = 1.1;
  params.presence_penalty = 0.5;
  Sampler sampler(params, network.config().text_config.vocab_size, {}, 1);
  std::vector<int32_t> ids(70);
  std::iota(ids.begin(), ids.end(), 1);
  const int64_t E = network.config().text_config.hidden_size;

  // A prompt, and then tokens one by one over the border of a page.
  const auto run = [&](int32_t context, std::span<const int32_t> rows) {
    const auto T = static_cast<int32_t>(rows.size()), last = T - 1;
    const Matrix<float> x(parts.x.data(), T, E);
    network.embed(rows, x);
    const SequenceRows sequence{0, T, context, parts.pages};
    network.run(parts.exec(), std::span(&sequence, 1), *parts.cache, x);
    network.logits(parts.exec(), x, std::span(&last, 1),
                   Matrix<float>(parts.logits.data(), 1, std::ssize(parts.logits)));
    return sampler.choose(ids, ids, parts.logits);
  };
  counting = true;
  int32_t id = run(0, ids);
  for (int32_t i = 0; i < 100; ++i) id = run(70 + i, std::span(&id, 1));
  counting = false;
  EXPECT_EQ(allocations, 0);
}

}  // namespace
}  // namespace idefics
