#include "cli/ask.h"

#include "cli/interrupt.h"
#include "cli/pictures.h"
#include "cli/progress.h"

namespace idefics::cli {

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
