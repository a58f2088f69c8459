#include "grammar/json_text.h"

#include <fmt/format.h>

#include <cmath>

#include "grammar/regex.h"

namespace idefics::grammar {

namespace {

constexpr int kMaxIndent = 16;

Expr hex_digits(std::string_view first, std::string_view second, int more) {
  const auto one_of = [](std::string_view set) {
    std::bitset<256> result;
    for (const char c : set) result.set(static_cast<uint8_t>(c));
    return bytes(result);
  };
  return sequence({one_of(first), one_of(second), repeat(one_of("0123456789abcdefABCDEF"), more, more)});
}

// Every \uHHHH but surrogates, and pairs of surrogates.
Expr unicode_escape() {
  constexpr std::string_view kAny = "0123456789abcdefABCDEF";
  const Expr plain = choice({hex_digits("0123456789abcefABCEF", kAny, 2), hex_digits("dD", "01234567", 2)});
  const Expr pair = sequence({hex_digits("dD", "89abAB", 2), text("\\u"), hex_digits("dD", "cdefCDEF", 2)});
  return sequence({text("\\u"), choice({plain, pair})});
}

CodePoints unescaped() {
  CodePoints set(0, 0x1f);
  set.add('"', '"');
  set.add('\\', '\\');
  return set.complement();
}

Expr simple_escape() {
  std::bitset<256> set;
  for (const char c : std::string_view("\"\\/bfnrt")) set.set(static_cast<uint8_t>(c));
  return sequence({text("\\"), bytes(set)});
}

Expr pair_of(Expr key, Expr value) { return sequence({std::move(key), json_colon(), std::move(value)}); }

// open, parts with commas between them, close; or nothing within.
Expr list(std::string_view open, const Expr& part, std::string_view close) {
  const Expr more = repeat(sequence({json_comma(), part}), 0, Expression::kUnbounded);
  return sequence({text(open), optional(sequence({json_break(), part, more})), json_break(), text(close)});
}

Expr literal_list(std::string_view open, const std::vector<Expr>& parts, std::string_view close) {
  if (parts.empty()) return sequence({text(open), json_break(), text(close)});
  std::vector<Expr> all = {text(open), json_break()};
  for (size_t i = 0; i < parts.size(); ++i) {
    if (i > 0) all.push_back(json_comma());
    all.push_back(parts[i]);
  }
  all.push_back(json_break());
  all.push_back(text(close));
  return sequence(std::move(all));
}

}  // namespace

Expr json_break() { return optional(choice({text(" "), sequence({text("\n"), repeat(text(" "), 0, kMaxIndent)})})); }

Expr json_colon() { return sequence({text(":"), optional(text(" "))}); }

Expr json_comma() { return sequence({text(","), json_break()}); }

Expr json_character() { return choice({utf8(unescaped()), simple_escape(), unicode_escape()}); }

Expr json_character(RuleId rare) { return choice({utf8(unescaped().intersect(CodePoints(0, 0x7f))), call(rare)}); }

Expr json_rare_character() {
  return choice({utf8(unescaped().intersect(CodePoints(0x80, 0x10ffff))), simple_escape(), unicode_escape()});
}

Expr quoted(Expr content) { return sequence({text("\""), std::move(content), text("\"")}); }

std::string json_quote(std::string_view value) {
  std::string out = "\"";
  for (const char c : value) {
    const auto byte = static_cast<uint8_t>(c);
    if (byte < 0x20 || c == '"' || c == '\\') {
      out += json_escape(byte);
    } else {
      out.push_back(c);
    }
  }
  return out + "\"";
}

Expr json_literal(const json::value& value) {
  if (value.is_string()) return text(json_quote(value.get_string()));
  if (value.is_double()) {
    return std::isfinite(value.get_double()) ? text(fmt::format("{}", value.get_double())) : nothing();
  }
  std::vector<Expr> parts;
  if (value.is_array()) {
    for (const json::value& item : value.get_array()) parts.push_back(json_literal(item));
    return literal_list("[", parts, "]");
  }
  if (value.is_object()) {
    for (const auto& [key, item] : value.get_object()) {
      parts.push_back(pair_of(text(json_quote(key)), json_literal(item)));
    }
    return literal_list("{", parts, "}");
  }
  return text(json::serialize(value));
}

Expr any_value(const AnyRules& rules) {
  return choice({call(rules.object), call(rules.array), call(rules.string), call(rules.number), text("true"),
                 text("false"), text("null")});
}

Expr any_object(const AnyRules& rules) { return list("{", pair_of(call(rules.string), call(rules.value)), "}"); }
Expr any_array(const AnyRules& rules) { return list("[", call(rules.value), "]"); }
Expr any_string() { return quoted(repeat(json_character(), 0, Expression::kUnbounded)); }

}  // namespace idefics::grammar
