#include "cli/ask.h"

#include <fmt/format.h>

#include "cli/interrupt.h"
#include "cli/pictures.h"
#include "cli/progress.h"
#include "cli/terminal.h"

namespace idefics::cli {

Engine load_engine(const ModelArgument& model, const EngineFlags& flags) {
  Progress loading(true);
  loading.say("loading " + model.folder);
  EngineOptions options = flags.options();
  options.max_num_seqs = 1;  // one question after the other
  Engine engine = Engine::load(model.folder, options);
  loading.clear();
  const std::vector<std::string>& bad = engine.nonfinite();
  if (!bad.empty())
    print_note(
        fmt::format("idefics: warning: {} of the tensors hold NaN or Inf, the first is {}; answers may be nonsense\n",
                    bad.size(), bad.front()));
  return engine;
}

Answer ask(Engine& engine, const Request& request, const Conversation& conversation, bool answer_elsewhere,
           const std::function<void(std::string_view)>& show) {
  const InterruptScope interrupt;
  Progress progress(answer_elsewhere);
  Observer observer;
  observer.text = [&](std::string_view delta) {
    progress.token();
    show(delta);
  };
  observer.tiles = [&](int done, int total) { progress.tiles(done, total); };
  observer.cancelled = [&] { return interrupt.requested(); };
  try {
    return engine.generate(request, observer);
  } catch (const Error& e) {
    blame_picture(e, conversation);
  }
}

}  // namespace idefics::cli
