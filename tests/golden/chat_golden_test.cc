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

}  // namespace
}  // namespace idefics::golden
