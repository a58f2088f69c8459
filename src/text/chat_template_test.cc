#include "text/chat_template.h"

#include <gtest/gtest.h>

#include <thread>

namespace idefics {
namespace {

std::string render(std::string_view source, const json::object& variables = {}) {
  return ChatTemplate::parse(source, "t").render(variables).text;
}

// The message of the error that `f` throws; its code must be `code`.
template <typename F>
std::string error_of(ErrorCode code, F f) {
  try {
    f();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), code);
    return e.what();
  }
  return "no error";
}
std::string parse_error(std::string_view source) {
  return error_of(ErrorCode::kBadModel, [&] { ChatTemplate::parse(source, "chat.jinja"); });
}
std::string render_error(std::string_view source, const json::object& variables = {}) {
  return error_of(ErrorCode::kTemplateError, [&] { ChatTemplate::parse(source, "chat.jinja").render(variables); });
}

TEST(ChatTemplate, a_syntax_error_names_the_template_and_the_line) {
  EXPECT_EQ(parse_error("a\n{{ 1 + }}"), "chat.jinja: line 2: expected an expression, found }}");
  EXPECT_EQ(parse_error("{% if true %}\n\nx"),
            "chat.jinja: line 3: the template ends before {% elif %} or {% else %} or {% endif %}");
  EXPECT_EQ(parse_error("\n\n{% do x %}"), "chat.jinja: line 3: unknown tag 'do'");
  EXPECT_EQ(parse_error("{{ 'a' |\n nofilter }}"), "chat.jinja: line 2: there is no filter 'nofilter'");
  EXPECT_EQ(parse_error("{{ 1 is notest }}"), "chat.jinja: line 1: there is no test 'notest'");
  EXPECT_EQ(parse_error("{# a\n"), "chat.jinja: line 1: a comment is not closed with #}");
  EXPECT_EQ(parse_error("{{ (1] }}"), "chat.jinja: line 1: unexpected ']', expected ')'");
  EXPECT_EQ(parse_error("\n{% break %}"), "chat.jinja: line 2: break outside of a loop");
  EXPECT_EQ(parse_error("{{ ? }}"), "chat.jinja: line 1: unexpected character '?'");
  EXPECT_EQ(parse_error("{{ 'a }}"), "chat.jinja: line 1: a string is not closed");
  EXPECT_EQ(parse_error("\xff"), "chat.jinja: line 1: the template is not UTF-8");
}

TEST(ChatTemplate, a_failure_names_the_template_and_the_line) {
  EXPECT_EQ(render_error("a\n{{ x.y }}"), "chat.jinja: line 2: 'x' is undefined");
  EXPECT_EQ(render_error("{% if true %}\n{{ raise_exception('roles\nmust alternate') }}{% endif %}"),
            "chat.jinja: line 2: the template refuses: roles must alternate");
  EXPECT_EQ(render_error("{{ m.a.b }}", {{"m", json::object{}}}),
            "chat.jinja: line 1: a value of type dict has no 'a'");
  EXPECT_EQ(render_error("\n\n{{ 'a' + 1 }}"), "chat.jinja: line 3: cannot compute str + int");
  EXPECT_EQ(render_error("{% set x = [1] %}{{ x.append(2) }}"),
            "chat.jinja: line 1: the attribute 'append' of a value of type list is not open to templates");
  EXPECT_EQ(render_error("{{ 9223372036854775807 + 1 }}"), "chat.jinja: line 1: a whole number goes beyond 64 bits");
}

TEST(ChatTemplate, names_set_later_in_the_same_scope_hide_variables_of_the_request) {
  EXPECT_EQ(render("{% for i in [1] %}[{{ a }}]{% endfor %}{% set a = 2 %}{{ a }}", {{"a", 1}}), "[]2");
  EXPECT_EQ(render("{{ a }}{% for i in [1] %}[{{ a }}]{% endfor %}{% set a = 2 %}{{ a }}", {{"a", 1}}), "1[1]2");
  EXPECT_EQ(render("{% if false %}{% set a = 2 %}{% endif %}{{ a }}", {{"a", 1}}), "1");
}

TEST(ChatTemplate, one_template_serves_many_threads) {
  const ChatTemplate chat = ChatTemplate::parse(
      "{% macro f(x) %}<{{ x | upper }}>{% endmacro %}{% for i in range(50) %}{{ f('a' ~ i) }}{% endfor %}", "t");
  const std::string want = chat.render({}).text;
  std::vector<std::thread> threads;
  std::array<bool, 4> same{};
  for (bool& s : same) {
    threads.emplace_back([&] {
      s = true;
      for (int i = 0; i < 50; ++i) s = s && chat.render({}).text == want;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(same, (std::array<bool, 4>{true, true, true, true}));
}

TEST(ChatTemplate, values_that_hold_one_another_are_freed) {
  // A leak checker sees it when not.
  EXPECT_EQ(render("{% set n = namespace() %}{% set n.me = n %}{% set n.list = [n] %}ok"), "ok");
  EXPECT_EQ(render("{% set n = namespace() %}{% macro f() %}{{ n }}{% endmacro %}{% set n.f = f %}ok"), "ok");
  EXPECT_EQ(render("{% for i in [1] %}{% set x = loop.changed([loop]) %}{% endfor %}ok"), "ok");
  EXPECT_NE(render_error("{% for i in [1] %}{% set x = loop.changed([loop]) %}{{ 1 / 0 }}{% endfor %}"), "no error");
  EXPECT_EQ(
      render(
          "{% set n = namespace() %}{% for i in [1] %}{% set n.l = loop %}{% endfor %}{{ n.l.index }}{{ n.l.last }}"),
      "1True");
  EXPECT_NE(render_error(
                "{% set n = namespace() %}{% for i in [1] recursive %}{% set n.l = loop %}{% endfor %}{{ n.l([1]) }}"),
            "no error");
}

// --- messages ---

TEST(NormalizeMessages, does_what_processors_do_before_rendering) {
  const auto normal = [](std::string_view text) {
    return json::serialize(normalize_messages(parse_json(text, "messages").get_array()));
  };
  EXPECT_EQ(normal(R"([{"role":"user","content":null,"name":"x"}])"), R"([{"role":"user","name":"x"}])");
  EXPECT_EQ(
      normal(
          R"([{"content":[{"type":"image_url","image_url":{"url":"u","detail":"low"}},"s",{"type":"text","text":"t"}]}])"),
      R"([{"content":[{"type":"image","url":"u"},"s",{"type":"text","text":"t"}]}])");
  EXPECT_EQ(normal(R"([{"content":[{"type":"image_url","image_url":{}}]}])"),
            R"([{"content":[{"type":"image","url":""}]}])");
  EXPECT_EQ(normal(R"([{"role":"a","reasoning":"r"}])"),
            R"([{"thinking":"r","role":"a","reasoning":"r","reasoning_content":"r"}])");
  EXPECT_EQ(normal(R"([{"thinking":"t","role":"a"}])"), R"([{"thinking":"t","role":"a","reasoning_content":"t"}])");
  EXPECT_EQ(normal(R"([{"reasoning_content":"c","thinking":"t"}])"), R"([{"thinking":"t","reasoning_content":"c"}])");
  error_of(ErrorCode::kTemplateError, [&] { normal(R"(["x"])"); });
  error_of(ErrorCode::kTemplateError, [&] { normal(R"([{"content":[{"type":"image_url","image_url":"u"}]}])"); });
}

TEST(RenderChat, tools_and_documents_are_none_unless_given) {
  const ChatTemplate chat =
      ChatTemplate::parse("{{ tools }}{{ documents is none }}{{ messages | length }}{{ add_generation_prompt }}", "t");
  EXPECT_EQ(render_chat(chat, {}, {}).text, "NoneTrue0False");
  ChatOptions options;
  options.variables["tools"] = json::array{1};
  options.add_generation_prompt = true;
  EXPECT_EQ(render_chat(chat, {}, options).text, "[1]True0True");
}

TEST(RenderChat, continues_the_final_message) {
  const ChatTemplate keeps = ChatTemplate::parse("{% for m in messages %}<{{ m.content }}>{% endfor %}", "t");
  const ChatTemplate trims = ChatTemplate::parse("{% for m in messages %}<{{ m.content | trim }}>{% endfor %}", "t");
  ChatOptions options;
  options.continue_final_message = true;
  const json::array messages = {{{"role", "user"}, {"content", "q"}}, {{"role", "assistant"}, {"content", "Sure: "}}};
  const auto kept = render_chat(keeps, messages, options);
  EXPECT_EQ(kept.text, "<q><Sure: ");
  ASSERT_EQ(kept.untrusted.size(), 2u);
  EXPECT_EQ(kept.untrusted[1].begin, 4u);
  EXPECT_EQ(kept.untrusted[1].end, 10u);
  EXPECT_EQ(render_chat(trims, messages, options).text, "<q><Sure:");
  error_of(ErrorCode::kTemplateError, [&] { render_chat(keeps, {}, options); });
  error_of(ErrorCode::kTemplateError, [&] { render_chat(keeps, {{{"role", "user"}}}, options); });
  error_of(ErrorCode::kTemplateError,
           [&] { render_chat(ChatTemplate::parse("{{ messages[0].content[:1] }}", "t"), messages, options); });
  error_of(ErrorCode::kTemplateError, [&] { render_chat(ChatTemplate::parse("x", "t"), messages, options); });
  options.add_generation_prompt = true;
  error_of(ErrorCode::kInvalidValue, [&] { render_chat(keeps, messages, options); });
}

}  // namespace
}  // namespace idefics
