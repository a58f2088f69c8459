// What `generate --verbose` says about an answer.
#pragma once

#include <string>

#include "idefics/engine.h"

namespace idefics::cli {

// The engine's numbers with the last step of its only request in them. The engine publishes them after the step, and
// the answer is there a moment before.
EngineStats stats_of_all(const Engine& engine, const Answer& answer);

// How much memory the engine has for what.
std::string memory_line(const Engine::Memory& memory);

// A line for each stage: its time, its name, and what it did.
std::string stage_lines(const Answer& answer, const EngineStats& stats, double load_ms);

}  // namespace idefics::cli
