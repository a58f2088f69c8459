// Chat templates: the Jinja texts of checkpoints that turn messages into a prompt, run as transformers runs them.
//
//   const ChatTemplate chat = ChatTemplate::parse(source, "models/x/chat_template.jinja");
//   ChatOptions options;
//   options.add_generation_prompt = true;
//   const ChatTemplate::Rendered prompt = render_chat(chat, messages, options);
//
// A template is untrusted code and messages are untrusted data. A rendering is bounded in steps, time, memory and
// output, and it says which bytes of the prompt came from outside the template, so that control tokens in them can be
// encoded as the plain text they are.
//
// Supported is the language of transformers' environment: Jinja 3.1 with trim_blocks, lstrip_blocks, loop controls,
// {% generation %}, raise_exception, strftime_now, tojson as json.dumps; the immutable sandbox; Python's values and
// their methods. Not supported, and an error when reached: numbers beyond 64 bits, other templates (include, import,
// extends), autoescape, the filters pprint, random, striptags, urlize and wordwrap, the function lipsum, and str's
// casefold, encode, maketrans and translate.
//
// Threads: a ChatTemplate is immutable; any number of threads may render it at once.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "text/jinja/budget.h"
#include "text/jinja/clock.h"
#include "text/text_range.h"

namespace idefics {

class ChatTemplate {
 public:
  using Limits = jinja::Limits;
  using CivilTime = jinja::CivilTime;

  // Parses the source of a template; `where` names it in errors. Errors: kBadModel with the line: not valid, larger
  // than 256 KiB, nested deeper than 64 levels.
  static ChatTemplate parse(std::string_view source, std::string_view where);

  // What a rendering needs besides its variables.
  struct Environment {
    std::vector<std::string> trusted;  // variables whose text counts as the template's own, e.g. bos_token
    Limits limits;
    jinja::Clock now = jinja::local_time;  // for strftime_now
  };
  struct Rendered {
    std::string text;                   // UTF-8
    std::vector<TextRange> untrusted;   // bytes that came from variables; sorted, disjoint
    std::vector<TextRange> generation;  // bytes of {% generation %} blocks, in the order they were run
  };

  // Errors: kTemplateError: the template refused (raise_exception), used what is undefined, failed in any other way, or
  // ran over its limits.
  Rendered render(const json::object& variables, const Environment& environment) const;
  Rendered render(const json::object& variables) const { return render(variables, Environment()); }

  const std::string& source() const;
  const std::string& where() const;

 private:
  struct Parsed;
  explicit ChatTemplate(std::shared_ptr<const Parsed> parsed) : parsed_(std::move(parsed)) {}
  std::shared_ptr<const Parsed> parsed_;
};

struct ChatOptions {
  bool add_generation_prompt = false;
  // The last message is the start of an answer: the text ends with it, so that the model goes on with it.
  bool continue_final_message = false;
  // Further variables: bos_token, eos_token, tools, documents, controls, ... `tools` and `documents` are none unless
  // given.
  json::object variables;
  ChatTemplate::Environment environment = {{"bos_token", "eos_token", "pad_token", "unk_token"}, {}, jinja::local_time};
};

// The messages as templates get to see them: keys whose value is null are left out, parts of the form {"type":
// "image_url", "image_url": {"url": ...}} become {"type": "image", "url": ...}, and `reasoning_content` and `thinking`
// are filled from one another and from `reasoning`. Errors: kTemplateError: a message is no object, an image_url has no
// url.
json::array normalize_messages(const json::array& messages);

// Normalizes the messages and renders them. Errors: as of the two; kInvalidValue: both options are set; kTemplateError:
// the final message cannot be continued.
ChatTemplate::Rendered render_chat(const ChatTemplate& chat, const json::array& messages, const ChatOptions& options);

}  // namespace idefics
