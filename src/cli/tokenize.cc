// idefics tokenize: text to token ids.
#include <memory>

#include "base/files.h"
#include "cli/json_lines.h"
#include "cli/shared_flags.h"
#include "cli/terminal.h"
#include "cli/verbs.h"

namespace idefics::cli {

namespace {

struct Tokenize {
  ModelArgument model;
  std::optional<std::string> text;
  bool special = false, untrusted = false, jsonl = false;
};

int run(const Tokenize& options) {
  options.model.require();
  if (options.jsonl && options.text)
    throw Error(ErrorCode::kUsage, "tokenize: --jsonl reads standard input; leave out TEXT");
  const Processor processor = Processor::load(options.model.folder);
  const auto ids_of = [&](std::string_view text) {
    return json::serialize(json::value_from(processor.tokenize(text, options.special, options.untrusted)));
  };
  if (options.jsonl) {
    for_each_line([&](const json::value& value, const std::string& where) { return ids_of(to_text(value, where)); });
  } else {
    print(ids_of(options.text ? *options.text : read_stdin(kMaxInputBytes)) + "\n");
  }
  return 0;
}

}  // namespace

void add_tokenize(CommandLine& line) {
  Verb& verb =
      line.add_verb("tokenize", "Turn text into token ids.", "idefics tokenize models/tiny-cards 'Hello, world!'",
                    "Prints a JSON array. Standard input is taken as it is, with the line end at its end.");
  const auto options = std::make_shared<Tokenize>();
  options->model.describe(verb);
  verb.argument("TEXT", "The text; without it standard input is read", options->text);
  verb.flag("--special", "Add the tokens that begin and end a text", options->special);
  verb.flag("--untrusted", "Take control tokens in the text as plain text", options->untrusted);
  verb.flag("--jsonl", "A JSON string on each line in, an array on each line out", options->jsonl);
  verb.action([options] { return run(*options); });
}

}  // namespace idefics::cli
