// str() and repr() of values.
#include <fmt/format.h>

#include <charconv>
#include <cmath>

#include "base/utf8.h"
#include "text/jinja/interpreter.h"
#include "text/jinja/unicode.h"
#include "text/jinja/value.h"

namespace idefics::jinja {
namespace {

void append_escaped(TextBuilder& out, char32_t c, std::string_view quote_mark) {
  if (c == '\\' || (c < 0x80 && static_cast<char>(c) == quote_mark[0]))
    return out.append(fmt::format("\\{}", static_cast<char>(c)), false);
  if (c == '\n') return out.append("\\n", false);
  if (c == '\r') return out.append("\\r", false);
  if (c == '\t') return out.append("\\t", false);
  if (is_printable(c)) return out.append(c, false);
  const auto code = static_cast<uint32_t>(c);
  out.append(c < 0x100     ? fmt::format("\\x{:02x}", code)
             : c < 0x10000 ? fmt::format("\\u{:04x}", code)
                           : fmt::format("\\U{:08x}", code),
             false);
}

// Python prefers single quotes and takes double ones when that saves escapes.
void append_text_repr(TextBuilder& out, const Text& text) {
  const bool has_single = text.view.find('\'') != std::string_view::npos;
  const bool has_double = text.view.find('"') != std::string_view::npos;
  const std::string_view mark = has_single && !has_double ? "\"" : "'";
  if (text.markup) out.append("Markup(", false);
  out.append(mark, false);
  out.budget().work(4 * text.view.size());
  for (size_t at = 0; at < text.view.size();) {
    const CodePoint c = decode_utf8(text.view, at);
    append_escaped(out, c.value, mark);
    at += static_cast<size_t>(c.length);
  }
  out.append(mark, false);
  if (text.markup) out.append(")", false);
}

// Without taint: what holds anything tainted is tainted as a whole by append_repr.
void append_plain_repr(TextBuilder& out, const Value& value);

void append_items(TextBuilder& out, std::string_view open, const std::vector<Value>& items, std::string_view close) {
  out.append(open, false);
  for (size_t i = 0; i < items.size(); ++i) {
    if (i > 0) out.append(", ", false);
    append_plain_repr(out, items[i]);
  }
  out.append(close, false);
}

void append_pairs(TextBuilder& out, const std::vector<std::pair<Value, Value>>& pairs) {
  out.append("{", false);
  for (size_t i = 0; i < pairs.size(); ++i) {
    if (i > 0) out.append(", ", false);
    append_plain_repr(out, pairs[i].first);
    out.append(": ", false);
    append_plain_repr(out, pairs[i].second);
  }
  out.append("}", false);
}

void append_view(TextBuilder& out, const View& view) {
  constexpr std::string_view kNames[] = {"dict_keys([", "dict_values([", "dict_items(["};
  out.append(kNames[static_cast<size_t>(view.part)], false);
  bool first = true;
  for (const auto& [key, value] : view.of.dict().entries) {
    if (!first) out.append(", ", false);
    first = false;
    if (view.part == View::Part::kItems) out.append("(", false);
    if (view.part != View::Part::kValues) append_plain_repr(out, key);
    if (view.part == View::Part::kItems) out.append(", ", false);
    if (view.part != View::Part::kKeys) append_plain_repr(out, value);
    if (view.part == View::Part::kItems) out.append(")", false);
  }
  out.append("])", false);
}

void append_plain_repr(TextBuilder& out, const Value& value) {
  Nesting nesting(out.budget());  // a namespace can hold itself
  out.budget().work(8);
  switch (value.kind()) {
    case Kind::kUndefined: return out.append("Undefined", false);
    case Kind::kNone: return out.append("None", false);
    case Kind::kBool: return out.append(value.boolean() ? "True" : "False", false);
    case Kind::kInt: return out.append(fmt::to_string(value.integer()), false);
    case Kind::kFloat: return out.append(float_repr(value.real()), false);
    case Kind::kText: return append_text_repr(out, value.text());
    case Kind::kList: return append_items(out, "[", value.items(), "]");
    case Kind::kTuple: return append_items(out, "(", value.items(), value.items().size() == 1 ? ",)" : ")");
    case Kind::kDict: return append_pairs(out, value.dict().entries);
    case Kind::kView: return append_view(out, value.as<View>());
    case Kind::kRange: {
      const Range& range = value.as<Range>();
      out.append(fmt::format("range({}, {}", range.start, range.stop), false);
      if (range.step != 1) out.append(fmt::format(", {}", range.step), false);
      return out.append(")", false);
    }
    case Kind::kNamespace: {
      out.append("<Namespace ", false);
      append_pairs(out, value.as<Namespace>().attributes);
      return out.append(">", false);
    }
    case Kind::kMacro: {
      const Routine& routine = *value.as<Macro>().routine;
      return out.append(routine.is_caller ? "<Macro anonymous>" : fmt::format("<Macro {}>", quote(routine.name)),
                        false);
    }
    case Kind::kLoop: {
      const Loop& loop = value.as<Loop>();
      out.append(fmt::format("<LoopContext {}", loop.index0 + 1), false);
      if (loop.length.has_value()) out.append(fmt::format("/{}", *loop.length), false);
      return out.append(">", false);
    }
    default: return out.append(fmt::format("<{}>", type_name(value)), false);  // Python prints an address here
  }
}

}  // namespace

void append_str(TextBuilder& out, const Value& value) {
  if (value.is_text()) return out.append(value.text());
  if (value.is_undefined()) return;
  append_repr(out, value);
}

void append_repr(TextBuilder& out, const Value& value) {
  const size_t begin = out.size();
  append_plain_repr(out, value);
  if (tainted_inside(out.budget(), value)) out.taint_from(begin);
}

Value to_text(Budget& budget, const Value& value) {
  if (value.is_text()) return value;
  TextBuilder out(budget);
  append_str(out, value);
  return out.finish();
}

std::string float_repr(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  char buffer[64];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::scientific).ptr;
  const std::string_view text(buffer, static_cast<size_t>(end - buffer));
  const size_t e = text.find('e');
  std::string digits;
  for (const char c : text.substr(0, e)) {
    if (c >= '0' && c <= '9') digits += c;
  }
  int exponent = 0;
  const size_t sign = text[e + 1] == '+' ? 2 : 1;
  std::from_chars(text.data() + e + sign, text.data() + text.size(), exponent);
  std::string out = std::signbit(value) ? "-" : "";
  if (exponent < -4 || exponent >= 16) {
    out += digits[0];
    if (digits.size() > 1) out.append(1, '.').append(digits, 1);
    return out + fmt::format("e{}{:02}", exponent < 0 ? '-' : '+', std::abs(exponent));
  }
  if (exponent < 0) return out + "0." + std::string(static_cast<size_t>(-exponent - 1), '0') + digits;
  const size_t whole = static_cast<size_t>(exponent) + 1;
  if (digits.size() <= whole) return out + digits + std::string(whole - digits.size(), '0') + ".0";
  return out + digits.substr(0, whole) + "." + digits.substr(whole);
}

}  // namespace idefics::jinja
