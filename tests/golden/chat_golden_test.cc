// Chat templates against transformers' own environment.
#include "golden.h"
#include "text/chat_template.h"

namespace idefics::golden {
namespace {

const json::object& templates() {
  static const json::value parsed = parse_json(read_file(data("chat/templates.json"), 1u << 20), "templates.json");
  return parsed.get_object();
}

ChatTemplate template_of(const json::object& row) {
  const auto& name = row.at("template").get_string();
  return ChatTemplate::parse(templates().at(name).at("template").as_string(), name);
}

// What a row wants, what it got; an empty text when they are the same.
template <typename Render>
std::string difference(const json::object& row, Render render) {
  const bool must_fail = row.contains("error");
  try {
    const std::string got = render();
    if (must_fail) return "rendered \"" + got + "\" instead of failing";
    const std::string want(row.at("rendered").get_string());
    return got == want ? "" : "wanted \"" + want + "\", got \"" + got + "\"";
  } catch (const Error& e) {
    return must_fail ? "" : std::string("failed: ") + e.what();
  }
}

TEST(Golden, chat) {
  Family family("chat");
  for (const auto& value : read_lines("chat/chat.jsonl")) {
    const json::object& row = value.get_object();
    const std::string bad = difference(row, [&] {
      ChatOptions options;
      options.add_generation_prompt = row.at("add_generation_prompt").get_bool();
      options.continue_final_message = row.contains("continue");
      if (const auto* vars = row.if_contains("vars")) options.variables = vars->get_object();
      return render_chat(template_of(row), row.at("messages").get_array(), options).text;
    });
    family.check(bad.empty(), json::serialize(value) + ": " + bad);
  }
}

// The recorded ranges count characters.
size_t count_characters(std::string_view text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

std::string generation_difference(const json::object& row, const ChatTemplate::Rendered& rendered) {
  json::array got;
  for (const TextRange& range : rendered.generation) {
    const size_t begin = count_characters(std::string_view(rendered.text).substr(0, range.begin));
    const size_t end = count_characters(std::string_view(rendered.text).substr(0, range.end));
    got.push_back(json::array{begin, end});
  }
  const json::array want = row.contains("generation") ? row.at("generation").get_array() : json::array();
  return got == want ? "" : "wanted generation " + json::serialize(want) + ", got " + json::serialize(got);
}

void check_language(Family& family, const json::value& value) {
  const json::object& row = value.get_object();
  std::string generation;
  std::string bad = difference(row, [&] {
    ChatTemplate::Environment environment;
    if (row.contains("now")) environment.now = [] { return ChatTemplate::CivilTime{2026, 1, 2, 3, 4, 5, 0}; };
    json::object variables = row.at("vars").get_object();
    variables.emplace("messages", json::array());
    const auto rendered =
        ChatTemplate::parse(row.at("template").get_string(), "template").render(variables, environment);
    generation = generation_difference(row, rendered);
    return rendered.text;
  });
  if (bad.empty()) bad = generation;
  family.check(bad.empty(), std::string(row.at("template").get_string()) + ": " + bad);
}

TEST(Golden, template_language) {
  Family family("chat_language");
  for (const auto& row : read_lines("chat/language.jsonl")) check_language(family, row);
  for (const auto& row : read_lines("chat/random.jsonl")) check_language(family, row);
}

// features.jsonl: the first row holds the two sets of variables, the others a template and which set it gets. Recorded
// by rendering each template in the environment of transformers 5.24.
TEST(Golden, template_features) {
  Family family("chat_features");
  const auto rows = read_lines("chat/features.jsonl");
  const json::array& variables = rows.at(0).at("vars").get_array();
  for (size_t i = 1; i < rows.size(); ++i) {
    const json::object& row = rows[i].get_object();
    const std::string bad = difference(row, [&] {
      ChatTemplate::Environment environment;
      environment.now = [] { return ChatTemplate::CivilTime{2026, 1, 2, 3, 4, 5, 6789}; };
      const json::object& vars = variables.at(row.at("vars").to_number<size_t>()).get_object();
      return ChatTemplate::parse(row.at("template").get_string(), "template").render(vars, environment).text;
    });
    family.check(bad.empty(), std::string(row.at("template").get_string()) + ": " + bad);
  }
}

// What the user wrote: the roles and the texts of the messages, in order.
std::string texts_of_user(const json::object& row) {
  std::string out;
  for (const auto& message : row.at("messages").get_array()) {
    std::string role(message.at("role").get_string());
    if (row.at("template") != "granite")
      role[0] = static_cast<char>(role[0] - 'a' + 'A');  // these templates capitalize it
    out += role;
    for (const auto& part : message.at("content").get_array()) out += std::string_view(part.at("text").get_string());
  }
  return out;
}

// What the template wrote around them.
std::string texts_of_template(const json::object& row) {
  const bool granite = row.at("template") == "granite";
  std::string out = granite ? "" : row.at("template") == "smolvlm" ? "<|im_start|>" : "<|begin_of_text|>";
  for (size_t i = 0; i < row.at("messages").get_array().size(); ++i) {
    out += granite ? "<|start_of_role|><|end_of_role|><|end_of_text|>\n" : ": <end_of_utterance>\n";
  }
  return out + (granite ? "<|start_of_role|>assistant<|end_of_role|>" : "Assistant:");
}

TEST(Golden, untrusted_text) {
  Family family("chat_untrusted");
  for (const auto& value : read_lines("chat/untrusted.jsonl")) {
    const json::object& row = value.get_object();
    ChatOptions options;
    options.add_generation_prompt = true;
    const auto rendered = render_chat(template_of(row), row.at("messages").get_array(), options);
    std::string from_user, from_template;
    size_t at = 0;
    for (const TextRange& range : rendered.untrusted) {
      from_template += rendered.text.substr(at, range.begin - at);
      from_user += rendered.text.substr(range.begin, range.end - range.begin);
      at = range.end;
    }
    from_template += rendered.text.substr(at);
    family.check(rendered.text == row.at("rendered").as_string(),
                 "wanted " + json::serialize(value) + ", got " + rendered.text);
    family.check(from_user == texts_of_user(row), json::serialize(value) + ": untrusted is \"" + from_user + "\"");
    family.check(from_template == texts_of_template(row),
                 json::serialize(value) + ": trusted is \"" + from_template + "\"");
  }
}

}  // namespace
}  // namespace idefics::golden
