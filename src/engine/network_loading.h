// From the folder of a checkpoint to a network.
#pragma once

#include <filesystem>
#include <memory>

#include "base/thread_pool.h"
#include "idefics/engine.h"
#include "model/network.h"

namespace idefics {

// Checks the files against each other and packs the weights. Errors: kBadModel, kInvalidValue, kOutOfMemory.
std::unique_ptr<Network> load_network(const std::filesystem::path& folder, const EngineOptions& options,
                                      ThreadPool& pool);

}  // namespace idefics
