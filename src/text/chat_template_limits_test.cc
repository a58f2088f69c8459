// Templates that want too much: each must end soon, with an error, and without taking much memory.
#include <gtest/gtest.h>
#include <malloc.h>
#include <pthread.h>

#include <chrono>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <string>

#include "text/chat_template.h"

namespace idefics {
namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr bool kSanitized = true;
#elif defined(__has_feature)
constexpr bool kSanitized = __has_feature(address_sanitizer);
#else
constexpr bool kSanitized = false;
#endif

struct Bomb {
  const char* name;
  const char* source;
};

// `n` is a namespace, `big` a text of a million letters, `accents` a million characters of two bytes, `many` a list of
// 100'000 numbers.
constexpr Bomb kBombs[] = {
    {"nested loops", "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}"},
    {"nested loops that print", "{% for a in range(100000) %}{% for b in range(100000) %}x{% endfor %}{% endfor %}"},
    {"a long range", "{{ range(1000000000000) | list }}"},
    {"a text times a number", "{{ 'a' * 1000000000 }}"},
    {"a long text times a number", "{{ (big * 4000000000)[0] }}"},
    {"a list times a number", "{{ [1] * 10000000000 }}"},
    {"a doubling text", "{% set n = namespace(s='a') %}{% for i in range(99) %}{% set n.s = n.s + n.s %}{% endfor %}"},
    {"a doubling list", "{% set n = namespace(s=[1]) %}{% for i in range(99) %}{% set n.s = n.s + n.s %}{% endfor %}"},
    {"a doubling block",
     "{% set s = 'a' %}{% macro f(s, k) %}{% if k %}{{ f(s ~ s, k - 1) }}{% endif %}{{ s }}{% endmacro %}{{ f(s, 60) "
     "}}"},
    {"a list nested in itself",
     "{% set n = namespace(x=1) %}{% for i in range(99999) %}{% set n.x = [n.x] %}{% endfor %}"},
    {"a chain of generators",
     "{% set n = namespace(x=[1]) %}{% for i in range(9999) %}{% set n.x = n.x | map('string') %}{% endfor %}{{ n.x | "
     "list }}"},
    {"a namespace in itself, printed", "{% set n = namespace() %}{% set n.n = [n] %}{{ n }}"},
    {"a namespace in itself, as JSON", "{% set n = namespace() %}{% set n.n = {'a': n} %}{{ n.n | tojson }}"},
    {"a macro that calls itself", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"},
    {"macros that call one another",
     "{% macro f() %}{{ g() }}{% endmacro %}{% macro g() %}{{ f() }}{% endmacro %}{{ f() }}"},
    {"a macro in its own default", "{% macro f(x=f()) %}{% endmacro %}{{ f() }}"},
    {"a macro that calls itself twice",
     "{% macro f(k) %}{% if k %}{{ f(k - 1) }}{{ f(k - 1) }}{% endif %}{% endmacro %}{{ f(60) }}"},
    {"call blocks without end", "{% macro f() %}{% call f() %}{{ caller() }}{% endcall %}{% endmacro %}{{ f() }}"},
    {"a recursive loop", "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}"},
    {"a recursive loop that fans out", "{% for x in many recursive %}{{ loop(many) }}{% endfor %}"},
    {"deep expressions in recursion",
     "{% macro f() %}{{ [[[[[[[[[[[[[[[[f()]]]]]]]]]]]]]]]] }}{% endmacro %}{{ f() }}"},
    {"a long join", "{{ (many * 100) | join(big) }}"},
    {"a join of long texts", "{{ [big, big, big] * 100 | join }}"},
    {"a replacement that grows", "{{ big | replace('a', big) }}"},
    {"a replacement of nothing",
     "{{ big.replace('', 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx') }}"},
    {"a wide number", "{{ '%999999999d' % 1 }}"},
    {"a number of many digits", "{{ '%.999999999f' % 1 }}"},
    {"a wide field", "{{ '{:999999999}'.format(1) }}"},
    {"a wide field from an argument", "{{ '{:{}}'.format('a', 999999999) }}"},
    {"a wide centre", "{{ 'a' | center(999999999) }}"},
    {"a wide ljust", "{{ 'a'.ljust(9999999999) }}"},
    {"a wide zfill", "{{ '1'.zfill(9999999999) }}"},
    {"a wide indent", "{{ 'a\\nb' | indent(999999999) }}"},
    {"an indent of many lines", "{{ ('a\\n' * 100000) | indent(100000) }}"},
    {"wide tabs", "{{ '\t'.expandtabs(9999999999) }}"},
    {"deep JSON with a wide indent", "{{ [[[[[[[[many]]]]]]]] | tojson(indent=1000) }}"},
    {"many batches", "{{ [1] | batch(1000000000, 'x') | list }}"},
    {"many slices", "{{ [1] | slice(1000000000) | list }}"},
    {"many pieces", "{% for i in range(1000) %}{% set x = (big ~ big).split('b') %}{% endfor %}{{ (big * 8) | list }}"},
    {"pieces upon pieces", "{% for i in range(1000) %}{% set x = big.replace('a', 'a,').split(',') %}{% endfor %}"},
    {"a search that repeats itself", "{% for i in range(100000) %}{{ ((big ~ 'b') in (big * 8)) or '' }}{% endfor %}"},
    {"a backward search", "{% for i in range(100000) %}{% set x = (big * 4).rfind('b' ~ big) %}{% endfor %}"},
    {"counting", "{% for i in range(100000) %}{% set x = (big * 8).count('ab') %}{% endfor %}"},
    {"items of a text by index", "{% for c in accents %}{% set x = accents[loop.index0] %}{% endfor %}"},
    {"a text turned round", "{% for i in range(100000) %}{% set x = accents[::-1] %}{% endfor %}"},
    {"upper cases that grow", "{{ ('\\u0390' * 10000000) | upper }}"},
    {"lower cases of sigma",
     "{% for i in range(10000) %}{% set x = ('a' ~ '\\u03a3\\'' * 1000000) | lower %}{% endfor %}"},
    {"title cases", "{% for i in range(10000) %}{% set x = ('a b ' * 100000) | title %}{% endfor %}"},
    {"sorting", "{% for i in range(1000) %}{% set x = many | sort(reverse=true) %}{% endfor %}"},
    {"sorting long texts", "{{ ([big ~ 'b', big ~ 'a'] * 1000) | sort | length }}"},
    {"grouping", "{% for i in range(1000) %}{% set x = many | groupby(0) %}{% endfor %}"},
    {"unique texts", "{% for i in range(1000) %}{% set x = many | map('string') | unique | list %}{% endfor %}"},
    {"comparing", "{% for i in range(100000) %}{% set x = many == many | list %}{% endfor %}"},
    {"looking in a list", "{% for i in range(100000) %}{% set x = -1 in many %}{% endfor %}"},
    {"a growing dict",
     "{% set n = namespace(d={}) %}{% for i in range(100000) %}{% set n.d = dict(n.d, **{i | string: i}) %}{% endfor "
     "%}"},
    {"a macro with many arguments", "{% macro f() %}{{ f(*varargs) }}{% endmacro %}{{ f(*many) }}"},
    {"a growing cycle",
     "{% for i in range(100000) %}{% set x = cycler(*range(2000)) %}{{ loop.changed(*range(2000)) }}{% endfor %}"},
    {"kept macros",
     "{% for i in range(100000) %}{% macro f() %}{{ caller() }}{% endmacro %}{% set x %}{% call f() %}{% endcall %}{% "
     "endset %}{% endfor %}"},
    {"kept namespaces", "{% for i in range(100000) %}{% set x = namespace(t=big ~ i) %}{% endfor %}"},
    {"printing a long text often", "{% for i in range(100) %}{{ big }}{% endfor %}"},
    {"printing a list often", "{% for i in range(100) %}{{ many }}{% endfor %}"},
    {"powers of powers", "{{ 9 ** 9 ** 9 ** 9 }}"},
    {"a long number", "{{ ('9' * 10000000) | int }}"},
    {"dates", "{% for i in range(100000) %}{% set x = strftime_now('%c' * 400) %}{% endfor %}"},
    {"a wide date", "{{ strftime_now('%999999999d') }}{{ raise_exception('no') }}"},
    {"escaping over and over",
     "{% set n = namespace(s='<') %}{% for i in range(100) %}{% set n.s = n.s | forceescape | string | replace('&', "
     "'&&') %}{% endfor %}"},
    {"sums of lists", "{{ ([many] * 1000) | sum(start=[]) }}"},
    {"filters of filters",
     "{% for i in range(100000) %}{% set x = many | select('odd') | reject('even') | map('string') | list %}{% endfor "
     "%}"},
    {"wrapping in sets",
     "{% set n = namespace(s='a') %}{% for i in range(99) %}{% set n.s %}{{ n.s }}{{ n.s }}{% endset %}{% endfor %}"},
};

std::string repeated(std::string_view piece, int count) {
  std::string out;
  for (int i = 0; i < count; ++i) out += piece;
  return out;
}

json::object variables() {
  json::object out;
  out["big"] = std::string(1'000'000, 'a');
  std::string accents;
  for (int i = 0; i < 1'000'000; ++i) accents += "é";
  out["accents"] = accents;
  json::array many;
  for (int i = 0; i < 100'000; ++i) many.push_back(i);
  out["many"] = many;
  return out;
}

// The largest size this process has had, in bytes.
size_t peak_memory() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmHWM:")) return std::stoul(line.substr(6)) << 10;
  }
  return 0;
}

// CPU seconds of this process: what other processes take does not count.
double cpu_seconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

// Renders a bomb with a limit of 50 ms instead of a second, which spares the waiting; what counts is how far beyond
// the limit it gets.
void check_bomb(const Bomb& bomb, const json::object& vars) {
  ChatTemplate::Environment environment;
  environment.limits.time = std::chrono::milliseconds(50);
  const double start = cpu_seconds();
  try {
    const auto rendered = ChatTemplate::parse(bomb.source, "bomb").render(vars, environment);
    ADD_FAILURE() << bomb.name << " rendered " << rendered.text.size() << " bytes";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kTemplateError) << bomb.name;
    EXPECT_EQ(std::string_view(e.what()).substr(0, 12), "bomb: line 1") << bomb.name << ": " << e.what();
    EXPECT_EQ(std::string_view(e.what()).find('\n'), std::string_view::npos) << bomb.name;
  }
  const double took = cpu_seconds() - start;
  EXPECT_LE(took, kSanitized ? 2.0 : 0.25) << bomb.name;
  if (std::getenv("IDEFICS_SHOW_TIMES") != nullptr) std::printf("%6.3f s  %s\n", took, bomb.name);
}

TEST(ChatTemplateLimits, every_bomb_ends_in_time_with_an_error_and_within_64_MiB) {
  ::mallopt(M_MMAP_THRESHOLD, 1 << 16);  // freed blocks go back at once, so that the peak is one of live memory
  const json::object vars = variables();
  for (const Bomb& bomb : kBombs) {
    ::malloc_trim(0);
    std::ofstream("/proc/self/clear_refs") << "5";  // starts the peak anew
    const size_t before = peak_memory();
    check_bomb(bomb, vars);
    if (!kSanitized) {  // a sanitizer keeps freed memory
      EXPECT_LE(peak_memory() - before, size_t{64} << 20) << bomb.name;
    }
  }
}

// The deepest recursions that the limits allow, in a thread with a small stack.
TEST(ChatTemplateLimits, half_a_megabyte_of_stack_is_enough) {
  constexpr size_t kStackBytes = kSanitized ? size_t{8} << 20 : size_t{512} << 10;  // a sanitizer makes frames larger
  static const std::string sources[] = {
      "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
      "{% macro f() %}{{ [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[f()]]]]]]]]]]]]]]]]]]]]]]]]]]]]]] }}{% endmacro %}{{ f() }}",
      "{% macro f() %}{{ ((((((((((((f() ~ 1) + 1) ~ 1) + 1) ~ 1) + 1) ~ 1) + 1) ~ 1) + 1) ~ 1) + 1) }}{% endmacro "
      "%}{{ f() }}",
      "{% macro f() %}{% if 1 %}{% for i in [1] %}{% with %}{% set x %}{% filter upper %}{% if 1 %}{% for i in [1] "
      "%}{{ f() "
      "}}{% endfor %}{% endif %}{% endfilter %}{% endset %}{% endwith %}{% endfor %}{% endif %}{% endmacro %}{{ f() }}",
      "{% macro f() %}{% call f() %}{{ caller() }}{% endcall %}{% endmacro %}{{ f() }}",
      "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
      "{% macro f(a) %}{% for x in [1] if f(1) | map('upper') | list %}{% endfor %}{% endmacro %}{{ f(1) }}",
      "{% set n = namespace(x=[1]) %}{% for i in range(90) %}{% set n.x = n.x | map('list') | select('string') %}{% "
      "endfor %}{{ n.x | list }}",
      "{% set n = namespace() %}{% set n.n = [[[{'a': n}]]] %}{{ n }}",
      "{% set n = namespace(x=1) %}{% for i in range(90) %}{% set n.x = [{'a': n.x}] %}{% endfor %}{{ n.x }}{{ n.x | "
      "tojson }}",
      "{{ " + repeated("(", 64) + repeated("[", 64) + "",
      "{{ " + repeated("(", 63) + "1" + repeated(")", 63) + " }}{{ x.y }}",
      "{{ " + repeated("not ", 60) + "x.y }}",
      "{{ " + repeated("[", 60) + "x.y" + repeated("]", 60) + " }}",
      repeated("{% if 1 %}", 60) + "{{ x.y }}" + repeated("{% endif %}", 60),
  };
  for (const std::string& source : sources) {
    pthread_attr_t attributes;
    ASSERT_EQ(::pthread_attr_init(&attributes), 0);
    ASSERT_EQ(::pthread_attr_setstacksize(&attributes, kStackBytes), 0);
    const auto body = [](void* argument) -> void* {
      const auto& text = *static_cast<const std::string*>(argument);
      EXPECT_THROW(ChatTemplate::parse(text, "t").render({}), Error) << text;
      return nullptr;
    };
    pthread_t thread{};
    ASSERT_EQ(::pthread_create(&thread, &attributes, body, const_cast<std::string*>(&source)), 0);
    ASSERT_EQ(::pthread_join(thread, nullptr), 0);
    ::pthread_attr_destroy(&attributes);
  }
}

TEST(ChatTemplateLimits, the_time_is_one_second_by_default) {
  const json::object vars = variables();
  const double start = cpu_seconds();
  EXPECT_THROW(ChatTemplate::parse("{% for i in range(100000) %}{% set x = many == many | list %}{% endfor %}", "t")
                   .render(vars),
               Error);
  EXPECT_LE(cpu_seconds() - start, kSanitized ? 3.0 : 1.2);
}

TEST(ChatTemplateLimits, limits_are_those_of_the_environment) {
  const ChatTemplate loop = ChatTemplate::parse("{% for i in range(1000) %}{{ i }}{% endfor %}", "t");
  ChatTemplate::Environment environment;
  environment.limits.steps = 100;
  EXPECT_THROW(loop.render({}, environment), Error);
  environment.limits = {};
  environment.limits.output_bytes = 1000;
  EXPECT_THROW(loop.render({}, environment), Error);
  environment.limits = {};
  environment.limits.memory_bytes = 1000;
  EXPECT_THROW(loop.render({}, environment), Error);
  environment.limits = {};
  EXPECT_EQ(loop.render({}, environment).text.size(), 2890u);
}

TEST(ChatTemplateLimits, a_long_chat_stays_within_them) {
  json::array messages;
  for (int i = 0; i < 2000; ++i) {
    messages.push_back({{"role", i % 2 == 0 ? "user" : "assistant"}, {"content", std::string(2000, 'x')}});
  }
  const ChatTemplate chat = ChatTemplate::parse(
      "{% for m in messages %}{% if loop.first and m.role == 'system' %}{{ m.content }}{% else %}{{ '<' + m['role'] + "
      "'>' + "
      "m['content'] | trim + '\\n' }}{% endif %}{% endfor %}",
      "t");
  EXPECT_GT(render_chat(chat, messages, {}).text.size(), 4'000'000u);
}

// --- parsing ---

TEST(ChatTemplateLimits, a_source_of_any_kind_is_read_or_refused_in_time_and_within_64_MiB) {
  const int n = 250'000;
  const std::string sources[] = {
      "{{ " + repeated("(", n),
      "{{ " + repeated("[", n),
      "{{ " + repeated("{1:", n / 4),
      "{{ " + repeated("not ", n / 4),
      "{{ " + repeated("- ", n / 2),
      "{{ " + repeated("1 if 1 else ", n / 12) + "1 }}",
      "{{ " + repeated("1 if ", n / 8),
      "{{ 1" + repeated("+1", n / 2) + " }}",
      "{{ a" + repeated(".a", n / 2) + " }}",
      "{{ a" + repeated("|e", n / 2) + " }}",
      "{{ a" + repeated("[0]", n / 3) + " }}",
      "{{ a" + repeated("()", n / 2) + " }}",
      "{{ a" + repeated(" is b", n / 5) + " }}",
      "{{ f(" + repeated("a=1,", n / 4) + ") }}",
      "{{ [" + repeated("1,", n / 2) + "] }}",
      "{% macro f(" + repeated("a,", n / 2) + ") %}{% endmacro %}",
      repeated("{% if 1 %}", n / 10),
      repeated("{% for i in b %}", n / 16),
      repeated("{% set x %}", n / 11),
      "{% if a %}" + repeated("{% elif a %}", n / 12) + "{% endif %}",
      repeated("{{ aa }}", n / 16) + "{% if a %}" + repeated("{% elif a %}", n / 24) + "{% endif %}",
      "{% set " + repeated("(", n),
      "{% set " + repeated("a,", n / 2) + " = 1 %}",
      repeated("{% block a %}", n / 13),
      repeated("{#", n / 2),
      repeated("{% raw %}", n / 9),
      repeated("{%", n / 2),
      repeated("{{", n / 2),
      "{{ '" + repeated("\\", n),
      "{{ " + repeated("''", n / 2) + " }}",
      repeated("{{ a }}\n", n / 8),
      "{{ " + repeated(" ", n) + "a }}",
  };
  for (const std::string& source : sources) {
    ::malloc_trim(0);
    std::ofstream("/proc/self/clear_refs") << "5";
    const size_t before = peak_memory();
    const double start = cpu_seconds();
    try {
      ChatTemplate::parse(source, "t").render({});
    } catch (const Error& e) {
      EXPECT_TRUE(e.code() == ErrorCode::kBadModel || e.code() == ErrorCode::kTemplateError);
    }
    EXPECT_LE(cpu_seconds() - start, kSanitized ? 4.0 : 1.2) << source.substr(0, 30);
    if (!kSanitized) {
      EXPECT_LE(peak_memory() - before, size_t{64} << 20) << source.substr(0, 30);
    }
    if (std::getenv("IDEFICS_SHOW_TIMES") != nullptr) {
      std::printf("%6.3f s %4zu MiB  %s\n", cpu_seconds() - start, (peak_memory() - before) >> 20,
                  source.substr(0, 20).c_str());
    }
  }
}

TEST(ChatTemplateLimits, a_source_has_a_greatest_size_and_depth) {
  EXPECT_THROW(ChatTemplate::parse(std::string(300'000, 'x'), "t"), Error);
  EXPECT_NO_THROW(ChatTemplate::parse(std::string(200'000, 'x'), "t"));
  EXPECT_NO_THROW(ChatTemplate::parse("{{ " + repeated("(", 60) + "1" + repeated(")", 60) + " }}", "t"));
  EXPECT_THROW(ChatTemplate::parse("{{ " + repeated("(", 65) + "1" + repeated(")", 65) + " }}", "t"), Error);
  EXPECT_NO_THROW(ChatTemplate::parse(repeated("{% if 1 %}", 60) + repeated("{% endif %}", 60), "t"));
  EXPECT_THROW(ChatTemplate::parse(repeated("{% if 1 %}", 65) + repeated("{% endif %}", 65), "t"), Error);
}

}  // namespace
}  // namespace idefics
