#include "text/chat_template.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/utf8.h"
#include "text/jinja/interpreter.h"
#include "text/jinja/parser.h"
#include "text/jinja/unicode.h"

namespace idefics {

struct ChatTemplate::Parsed {
  std::string source, where;
  jinja::Body root;
};

ChatTemplate ChatTemplate::parse(std::string_view source, std::string_view where) {
  auto parsed = std::make_shared<Parsed>();
  parsed->root = jinja::parse(source, where);
  parsed->source = source;
  parsed->where = where;
  return ChatTemplate(std::move(parsed));
}

const std::string& ChatTemplate::source() const { return parsed_->source; }
const std::string& ChatTemplate::where() const { return parsed_->where; }

ChatTemplate::Rendered ChatTemplate::render(const json::object& variables, const Environment& environment) const {
  try {
    jinja::Interpreter interpreter(variables, environment.trusted, environment.limits, environment.now);
    jinja::Interpreter::Result result = interpreter.run(parsed_->root);
    Rendered out{std::move(result.text), std::move(result.untrusted), std::move(result.generation)};
    for (TextRange& range : out.generation) {
      range.begin = std::min(range.begin, out.text.size());
      range.end = std::min(range.end, out.text.size());
    }
    return out;
  } catch (const Error& e) {
    throw e.with_context(parsed_->where);
  }
}

namespace {

constexpr std::string_view kContinueTag = "CONTINUE_FINAL_MESSAGE_TAG ";
constexpr std::array<std::string_view, 3> kReasoningNames = {"reasoning_content", "thinking", "reasoning"};

[[noreturn]] void fail(const std::string& message) { throw Error(ErrorCode::kTemplateError, message); }

json::value normalize_part(const json::value& part) {
  const json::object* object = part.if_object();
  if (object == nullptr) return part;
  const json::value *type = object->if_contains("type"), *image_url = object->if_contains("image_url");
  if (type == nullptr || *type != "image_url" || image_url == nullptr) return part;
  if (!image_url->is_object()) fail("messages: image_url must be an object with a url, found " + describe(*image_url));
  const json::value* url = image_url->get_object().if_contains("url");
  return json::object{{"type", "image"}, {"url", url == nullptr ? json::value("") : *url}};
}

// Templates read one name or the other: the first one that is there fills both.
json::object with_reasoning(json::object message) {
  const json::value* reasoning = nullptr;
  for (const std::string_view name : kReasoningNames) {
    if (reasoning == nullptr) reasoning = message.if_contains(name);
  }
  if (reasoning == nullptr) return message;
  const json::value value = *reasoning;
  json::object out;
  out["thinking"] = value;
  for (auto& [key, item] : message) out[key] = std::move(item);
  out["reasoning_content"] = value;
  return out;
}

std::string_view strip(std::string_view text) {
  const auto blank_at = [&](size_t at) { return jinja::is_space(decode_utf8(text, at).value); };
  while (!text.empty() && blank_at(0)) text.remove_prefix(static_cast<size_t>(decode_utf8(text, 0).length));
  while (!text.empty()) {
    size_t last = text.size() - 1;
    while (last > 0 && (static_cast<unsigned char>(text[last]) & 0xc0) == 0x80) --last;
    if (!blank_at(last)) break;
    text.remove_suffix(text.size() - last);
  }
  return text;
}

// The text of the final message that the answer begins with: its content, or the last part that has a text.
json::string& text_to_continue(json::array& messages) {
  if (messages.empty()) fail("messages: there is no final message to continue");
  json::value* content = messages.back().get_object().if_contains("content");
  if (content == nullptr) fail("messages: the final message has no content to continue");
  if (content->is_array()) {
    json::array& parts = content->get_array();
    const auto part = std::find_if(parts.rbegin(), parts.rend(), [](const json::value& p) {
      return p.is_object() && p.get_object().contains("text");
    });
    if (part == parts.rend()) fail("messages: the final message has no text to continue");
    content = part->get_object().if_contains("text");
  }
  if (!content->is_string()) fail("messages: the text to continue must be a string, found " + describe(*content));
  return content->get_string();
}

void cut(std::vector<TextRange>& ranges, size_t end) {
  for (TextRange& range : ranges) {
    range.begin = std::min(range.begin, end);
    range.end = std::min(range.end, end);
  }
  std::erase_if(ranges, [](const TextRange& range) { return range.begin == range.end; });
}

// Everything behind the final message's text goes. When the template trimmed the blanks of the tag, it would have
// trimmed those of the text, too.
void cut_behind_final_message(ChatTemplate::Rendered& rendered, std::string_view final_text) {
  constexpr std::string_view kTag = kContinueTag.substr(0, kContinueTag.size() - 1);
  const std::string_view text = rendered.text;
  const size_t tag = text.rfind(kTag);
  if (text.find(strip(final_text)) == std::string_view::npos || tag == std::string_view::npos) {
    fail("messages: the final message cannot be continued: its text is not in the rendered chat as it is");
  }
  size_t end = tag;
  if (!text.substr(tag).starts_with(kContinueTag)) {
    const std::string_view kept = text.substr(0, tag);
    end = strip(kept).empty() ? 0 : static_cast<size_t>(strip(kept).data() - kept.data()) + strip(kept).size();
  }
  rendered.text.resize(end);
  cut(rendered.untrusted, end);
  cut(rendered.generation, end);
}

}  // namespace

json::array normalize_messages(const json::array& messages) {
  json::array out;
  for (const json::value& message : messages) {
    if (!message.is_object()) fail("messages: a message must be an object, found " + describe(message));
    json::object kept;
    for (const auto& [key, value] : message.get_object()) {
      if (!value.is_null()) kept.emplace(key, value);
    }
    if (json::value* content = kept.if_contains("content"); content != nullptr && content->is_array()) {
      for (json::value& part : content->get_array()) part = normalize_part(part);
    }
    out.push_back(with_reasoning(std::move(kept)));
  }
  return out;
}

ChatTemplate::Rendered render_chat(const ChatTemplate& chat, const json::array& messages, const ChatOptions& options) {
  if (options.add_generation_prompt && options.continue_final_message) {
    throw Error(ErrorCode::kInvalidValue,
                "add_generation_prompt and continue_final_message exclude one another: set one of them");
  }
  json::array normal = normalize_messages(messages);
  std::string final_text;
  if (options.continue_final_message) {
    json::string& text = text_to_continue(normal);
    if (chat.source().find("content") == std::string::npos)
      fail(chat.where() + ": the template does not use the content of messages");
    final_text = std::string(text);
    text += kContinueTag;
  }
  json::object variables = options.variables;
  variables.emplace("tools", nullptr);
  variables.emplace("documents", nullptr);
  variables["messages"] = std::move(normal);
  variables["add_generation_prompt"] = options.add_generation_prompt;
  ChatTemplate::Rendered rendered = chat.render(variables, options.environment);
  if (options.continue_final_message) cut_behind_final_message(rendered, final_text);
  return rendered;
}

}  // namespace idefics
