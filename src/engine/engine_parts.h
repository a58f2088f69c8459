// What an Engine is made of; for this library's own rooms and tests.
#pragma once

#include <array>
#include <future>

#include "base/thread_pool.h"
#include "idefics/engine.h"
#include "model/network.h"

namespace idefics {

struct Engine::Parts {
  Parts(const std::filesystem::path& folder, const EngineOptions& options);

  Exec exec() { return {kernels, pool, arena}; }

  EngineOptions options;
  const kernels::Table& kernels;
  ThreadPool pool;
  std::unique_ptr<Network> network;
  Processor processor;
  Arena arena;
  std::unique_ptr<KvCache> cache;
  std::vector<PageId> pages;           // of the one sequence there is
  std::vector<float> x, logits;        // [chunk, E], [V]
  std::array<float, 768> pixel_table;  // what the bytes of a picture become

 private:
  Parts(const std::filesystem::path& folder, const EngineOptions& options, std::future<Processor> reading);
};

}  // namespace idefics
