// idefics chat: a conversation at the terminal.
#include <memory>

#include "cli/ask.h"
#include "cli/chat_session.h"
#include "cli/shared_flags.h"
#include "cli/terminal.h"
#include "cli/verbs.h"

namespace idefics::cli {

namespace {

struct Chat {
  ModelArgument model;
  std::optional<std::string> system;
  ImageFlags images;
  SamplingFlags sampling;
  EngineFlags engine;
};

int run(const Chat& options) {
  options.model.require();
  ChatOptions chat{options.system, options.sampling.apply({}), options.images.options(),
                   options.sampling.skip_special()};
  Engine engine = load_engine(options.model, options.engine);
  chat.sampling = options.sampling.apply(engine.default_sampling());
  const std::unique_ptr<LineReader> reader = make_line_reader();
  return ChatSession(engine, *reader, std::move(chat)).run();
}

}  // namespace

void add_chat(CommandLine& line) {
  Verb& verb =
      line.add_verb("chat", "Talk with a model about pictures.", "idefics chat models/tiny-cards",
                    "Type a question, or /image PATH first; /help lists the commands. Ctrl-C stops an answer, "
                    "Ctrl-D ends. Standard input need not be a terminal: then each line is a question, and the "
                    "exit code is that of the first failure.");
  const auto options = std::make_shared<Chat>();
  options->model.describe(verb);
  verb.group("Question");
  verb.text("--system", "TEXT", "A system message before the conversation", options->system);
  options->images.describe(verb);
  options->sampling.describe(verb);
  options->engine.describe(verb);
  verb.config_file();
  verb.action([options] { return run(*options); });
}

}  // namespace idefics::cli
