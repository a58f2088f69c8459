// idefics render: the prompt that a conversation becomes.
#include <memory>

#include "base/json.h"
#include "cli/pictures.h"
#include "cli/shared_flags.h"
#include "cli/terminal.h"
#include "cli/verbs.h"

namespace idefics::cli {

namespace {

struct Render {
  ModelArgument model;
  std::string messages;
  ImageFlags images;
  bool json = false;
};

Prompt make_prompt(const Processor& processor, const Conversation& conversation, const ImageOptions& images) {
  PromptOptions options;
  options.images = images;
  try {
    return processor.prompt(conversation.messages, options);
  } catch (const Error& e) {
    blame_picture(e, conversation);
  }
}

std::string to_json(const Prompt& prompt) {
  json::array tiles;
  for (const TileSpan& span : prompt.tiles)
    tiles.emplace_back(json::object{{"image", span.image}, {"tile", span.tile}, {"first", span.first}});
  return json::serialize(json::object{{"text", prompt.text},
                                      {"ids", json::value_from(prompt.ids)},
                                      {"image_tokens", prompt.num_image_tokens},
                                      {"tiles", std::move(tiles)}}) +
         "\n";
}

int run(const Render& options) {
  const Conversation conversation = read_messages_file(options.messages);
  options.model.require();
  const Prompt prompt = make_prompt(Processor::load(options.model.folder), conversation, options.images.options());
  print(options.json ? to_json(prompt) : prompt.text + "\n" + json::serialize(json::value_from(prompt.ids)) + "\n");
  return 0;
}

}  // namespace

void add_render(CommandLine& line) {
  Verb& verb =
      line.add_verb("render", "Show the prompt that a conversation becomes.",
                    "idefics render models/tiny-cards --messages messages.json",
                    "Prints the text after the chat template and the expansion of the pictures' places, and on "
                    "the last line the token ids as a JSON array.");
  const auto options = std::make_shared<Render>();
  options->model.describe(verb);
  verb.group("Question");
  verb.required_text("--messages", "FILE", "A JSON array of {\"role\", \"content\"}, as for generate",
                     options->messages);
  options->images.describe(verb);
  verb.group("Output");
  verb.flag("--json", "Print one JSON object", options->json);
  verb.action([options] { return run(*options); });
}

}  // namespace idefics::cli
