// Any allocation of a request may fail, and the engine goes on.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <new>

#include "engine/card_questions.h"

namespace {

std::atomic<int64_t> countdown{-1};  // the allocation that brings it to 0 fails

void* allocate(std::size_t bytes, std::size_t alignment) {
  if (countdown > 0 && --countdown == 0) throw std::bad_alloc();
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

namespace idefics {
namespace {

// Every allocation at first, then about every fiftieth.
TEST(OutOfMemory, ends_one_request_and_leaves_the_engine_whole) {
  Engine engine = Engine::load(kModel, {.vision_cache_bytes = 0});
  Request request = ask("06.png", "How many shapes are there?"), canary = ask("01.png", "What colour is the circle?");
  request.logprobs = 2;
  request.n = 2;
  const Answer want = engine.generate(request), want_canary = engine.generate(canary);
  int failed = 0;
  int64_t k = 1;  // so many the request has; more and no allocation fails
  for (bool reached = true; reached; k += 1 + k / 50) {
    EventStream stream = engine.submit(canary);  // its first events allocate the stream's memory
    while (stream.next()) {
    }
    request.cache_salt = std::to_string(k);  // nothing is in a cache
    try {
      countdown = k;
      const Answer answer = engine.generate(request);
      EXPECT_EQ(answer.text(), want.text());
      EXPECT_EQ(answer.choices[1].token_ids, want.choices[1].token_ids);
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kOutOfMemory) << e.what();
      ++failed;
    } catch (const std::bad_alloc&) {  // of this thread
      ++failed;
    }
    reached = countdown <= 0;
    countdown = -1;
    ASSERT_EQ(engine.generate(canary).text(), want_canary.text()) << "after allocation " << k;
  }
  EXPECT_GT(failed, 50);
  EXPECT_GT(k, 300) << "a request has more allocations than that";
}

}  // namespace
}  // namespace idefics
