// Loads an engine, sends it a request, and shows the answer while it comes.
#pragma once

#include <functional>
#include <string_view>

#include "cli/messages_file.h"
#include "cli/shared_flags.h"
#include "idefics/engine.h"

namespace idefics::cli {

// Says on a terminal that it loads, and warns of the tensors with NaN or Inf that --allow-nonfinite let in.
Engine load_engine(const ModelArgument& model, const EngineFlags& flags);

// Shows progress on a terminal, gives the text to `show` piece by piece, and stops at Ctrl-C: then the answer's finish
// reason is kCancelled. `answer_elsewhere`: `show` does not write to the terminal that shows the progress.
// Errors: those of Engine::generate; a damaged picture is named by its file.
Answer ask(Engine& engine, const Request& request, const Conversation& conversation, bool answer_elsewhere,
           const std::function<void(std::string_view)>& show);

}  // namespace idefics::cli
