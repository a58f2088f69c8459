// idefics detokenize: token ids to text.
#include <memory>

#include "base/files.h"
#include "cli/json_lines.h"
#include "cli/shared_flags.h"
#include "cli/terminal.h"
#include "cli/verbs.h"

namespace idefics::cli {

namespace {

struct Detokenize {
  ModelArgument model;
  std::optional<std::string> ids;
  bool skip_special = false, jsonl = false;
};

int run(const Detokenize& options) {
  options.model.require();
  if (options.jsonl && options.ids)
    throw Error(ErrorCode::kUsage, "detokenize: --jsonl reads standard input; leave out IDS");
  const Processor processor = Processor::load(options.model.folder);
  const auto text_of = [&](const json::value& value, const std::string& where) {
    return processor.detokenize(to_ids(value, where), options.skip_special);
  };
  if (options.jsonl) {
    for_each_line([&](const json::value& value, const std::string& where) {
      return json::serialize(json::string(text_of(value, where)));
    });
    return 0;
  }
  const std::string where = options.ids ? "IDS" : "standard input";
  const std::string input = options.ids ? *options.ids : read_stdin(kMaxInputBytes);
  print(text_of(parse_json(input, where, ErrorCode::kInvalidValue), where) + "\n");
  return 0;
}

}  // namespace

void add_detokenize(CommandLine& line) {
  Verb& verb =
      line.add_verb("detokenize", "Turn token ids into text.", "idefics detokenize models/tiny-cards '[221, 269, 304]'",
                    "Prints the text and a line end. Unknown ids are left out.");
  const auto options = std::make_shared<Detokenize>();
  options->model.describe(verb);
  verb.argument("IDS", "A JSON array; without it standard input is read", options->ids);
  verb.flag("--skip-special", "Leave special tokens out", options->skip_special);
  verb.flag("--jsonl", "An array on each line in, a JSON string on each line out", options->jsonl);
  verb.action([options] { return run(*options); });
}

}  // namespace idefics::cli
