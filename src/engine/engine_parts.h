// What an Engine is made of; for this library's own rooms and tests.
#pragma once

#include <array>
#include <future>

#include "base/thread_pool.h"
#include "engine/engine_loop.h"
#include "engine/preparation.h"
#include "idefics/engine.h"
#include "model/network.h"

namespace idefics {

// Threads beside the callers': those of preparation make prompts, the loop owns the network. Both have workers that
// compute.
struct Engine::Parts {
  Parts(const std::filesystem::path& folder, const EngineOptions& options);
  ~Parts();

  EngineOptions options;  // with every default filled in
  const kernels::Table& kernels;
  ThreadPool pool;  // the loop's
  std::unique_ptr<Network> network;
  Processor processor;
  std::array<float, 768> pixel_table;  // what the bytes of a picture become
  StepRunner runner;
  PixelBudget pixels;
  std::shared_ptr<OpenRequests> open;
  // Each hands over to the other. What preparation holds ends before the loop does.
  Preparation preparation;
  EngineLoop loop;

 private:
  Parts(const std::filesystem::path& folder, const EngineOptions& options, std::future<Processor> reading);
};

}  // namespace idefics
