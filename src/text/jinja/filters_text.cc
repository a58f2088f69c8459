// Filters of texts and numbers.
#include <fmt/format.h>

#include <array>
#include <cmath>

#include "base/utf8.h"
#include "text/jinja/filters_internal.h"
#include "text/jinja/format.h"
#include "text/jinja/iterate.h"
#include "text/jinja/numbers.h"
#include "text/jinja/text_ops.h"
#include "text/jinja/unicode.h"

namespace idefics::jinja {
namespace {

Value with_text(Interpreter& in, const Value& value, const Args& args, Value (*op)(Budget&, const Text&)) {
  Bound("the filter", args, {});
  const Value text = to_text(in.budget(), value);
  return op(in.budget(), text.text());
}

template <Value (*kOp)(Budget&, const Text&)>
Value case_filter(Interpreter& in, const Value& value, const Args& args) {
  return with_text(in, value, args, kOp);
}

bool starts_word(char32_t c) { return c == '-' || c == '(' || c == '{' || c == '[' || c == '<' || is_space(c); }

// Jinja's own rule, not str.title: words begin after blanks and opening brackets.
Value title_words(Budget& budget, const Text& text) {
  TextBuilder out(budget);
  const std::string_view view = text.view;
  for (size_t at = 0; at < view.size();) {
    const CodePoint first = decode_utf8(view, at);
    const bool between = starts_word(first.value);
    const size_t second = at + static_cast<size_t>(first.length);
    size_t end = second;
    while (end < view.size()) {
      const CodePoint c = decode_utf8(view, end);
      if (starts_word(c.value) != between) break;
      end += static_cast<size_t>(c.length);
    }
    out.append(upper(budget, make_part(budget, text, at, second).text()).text());
    out.append(lower(budget, make_part(budget, text, second, end).text()).text());
    at = end;
  }
  return out.finish();
}

Value string_filter(Interpreter& in, const Value& value, const Args& args) {
  Bound("string", args, {});
  return to_text(in.budget(), value);
}

Value trim_filter(Interpreter& in, const Value& value, const Args& args) {
  const Bound bound("trim", args, {"chars"});
  const Value text = to_text(in.budget(), value);
  std::optional<std::string_view> chars;
  if (bound.has_value(0)) chars = bound.text(0).view;
  return strip(in.budget(), text.text(), chars, true, true);
}

Value replace_filter(Interpreter& in, const Value& value, const Args& args) {
  const Bound bound("replace", args, {"old", "new", "count"}, 2);
  Budget& budget = in.budget();
  const Value text = to_text(budget, value), old = to_text(budget, bound[0]), with = to_text(budget, bound[1]);
  return replace(budget, text.text(), old.text(), with.text(), bound.has_value(2) ? bound.integer(2, -1) : -1);
}

Value center_filter(Interpreter& in, const Value& value, const Args& args) {
  const Bound bound("center", args, {"width"});
  const Value text = to_text(in.budget(), value);
  return center(in.budget(), text.text(), bound.integer(0, 80));
}

Value indent_filter(Interpreter& in, const Value& value, const Args& args) {
  const Bound bound("indent", args, {"width", "first", "blank"});
  Budget& budget = in.budget();
  const Text& text = need_text(value, "indent");
  const bool by_text = bound.has(0) && bound[0].is_text();
  const Value unit = by_text ? bound[0] : pad(budget, in.text("").text(), bound.integer(0, 4), 0);
  const bool first = bound.flag(1, false), blank = bound.flag(2, false);
  TextBuilder out(budget);
  const Value with_end = add_texts(budget, value, in.text("\n"));
  const std::vector<Value> lines = split_lines(budget, with_end.text(), false);
  for (size_t i = 0; i < lines.size(); ++i) {
    const Text& line = lines[i].text();
    if (i > 0) out.append("\n", false);
    if (i == 0 ? first : blank || !line.view.empty()) out.append(unit.text());
    out.append(line);
  }
  return out.finish(text.markup);
}

Value truncate_filter(Interpreter& in, const Value& value, const Args& args) {
  const Bound bound("truncate", args, {"length", "killwords", "end", "leeway"});
  Budget& budget = in.budget();
  const Text& text = need_text(value, "truncate");
  const int64_t length = bound.integer(0, 255), leeway = bound.has_value(3) ? bound.integer(3, 5) : 5;
  const Value end = bound.has(2) ? bound[2] : in.text("...");
  const int64_t end_length = static_cast<int64_t>(need_text(end, "truncate").length);
  if (length < end_length || leeway < 0)
    fail("truncate needs a length of at least that of its end, and a leeway of at least 0");
  if (static_cast<int64_t>(text.length) <= add_ints(length, leeway)) return value;
  Value kept = slice_text(budget, text, 0, length - end_length);
  if (!bound.flag(1, false)) kept = split_from_right(budget, kept.text(), " ", 1).front();
  return add_texts(budget, kept, end);
}

Value wordcount_filter(Interpreter& in, const Value& value, const Args& args) {
  Bound("wordcount", args, {});
  const Value text = to_text(in.budget(), value);
  const std::string_view view = text.text().view;
  in.budget().work(4 * view.size());
  int64_t count = 0;
  bool in_word = false;
  for (size_t at = 0; at < view.size();) {
    const CodePoint c = decode_utf8(view, at);
    const bool letter = c.value == '_' || is_alnum(c.value);
    count += letter && !in_word ? 1 : 0;
    in_word = letter;
    at += static_cast<size_t>(c.length);
  }
  return Value::integer(count);
}

Value format_filter(Interpreter& in, const Value& value, const Args& args) {
  if (!args.positional.empty() && !args.named.empty()) fail("format takes either positional or named arguments");
  const Value text = to_text(in.budget(), value);
  if (args.named.empty()) return percent_format(in, text.text(), make_list(in.budget(), args.positional, Kind::kTuple));
  auto dict = new_dict(in.budget());
  for (const auto& [name, item] : args.named) dict->set(name, item);
  return percent_format(in, text.text(), finish_dict(in.budget(), std::move(dict)));
}

// --- markup ---

Value escape_filter(Interpreter& in, const Value& value, const Args& args) {
  Bound("escape", args, {});
  return escape_markup(in.budget(), value);
}

Value safe_filter(Interpreter& in, const Value& value, const Args& args) {
  Bound("safe", args, {});
  TextBuilder out(in.budget());
  append_str(out, value);
  return out.finish(true);
}

Value forceescape_filter(Interpreter& in, const Value& value, const Args& args) {
  Bound("forceescape", args, {});
  TextBuilder out(in.budget());
  append_str(out, value);
  return escape_markup(in.budget(), out.finish());
}

Value xmlattr_filter(Interpreter& in, const Value& value, const Args& args) {
  const Bound bound("xmlattr", args, {"autospace"});
  if (value.is_undefined()) fail(value.why_undefined());
  if (!value.is(Kind::kDict)) fail("xmlattr needs a dict");
  TextBuilder out(in.budget());
  for (const auto& [key, item] : value.dict().entries) {
    if (item.is_none() || item.is_undefined()) continue;
    const std::string_view name = need_text(key, "a name of xmlattr").view;
    if (name.find_first_of(" \t\n\r\f\v/>=") != std::string_view::npos)
      fail("a name of xmlattr holds a forbidden character");
    if (out.size() > 0 || bound.flag(0, true)) out.append(" ", false);
    out.append(escape_markup(in.budget(), key).text());
    out.append("=\"", false);
    out.append(escape_markup(in.budget(), item).text());
    out.append("\"", false);
  }
  return out.finish();
}

// --- URLs, sizes ---

void append_url_quoted(Interpreter& in, TextBuilder& out, const Value& value, bool in_query) {
  const Value text = to_text(in.budget(), value);
  Taint::Cursor taint(text.text().taint);
  const std::string_view view = text.text().view;
  for (size_t at = 0; at < view.size(); ++at) {
    const auto c = static_cast<unsigned char>(view[at]);
    const bool plain =
        (c < 0x80 && is_alnum(c)) || c == '_' || c == '.' || c == '-' || c == '~' || (c == '/' && !in_query);
    const std::string code = plain ? std::string() : fmt::format("%{:02X}", c);
    const std::string_view quoted = plain ? view.substr(at, 1) : c == ' ' && in_query ? std::string_view("+") : code;
    out.append(quoted, taint.at(at));
  }
}

Value urlencode_filter(Interpreter& in, const Value& value, const Args& args) {
  Bound("urlencode", args, {});
  TextBuilder out(in.budget());
  if (value.is_text() || !is_iterable(value)) {
    append_url_quoted(in, out, value, false);
    return out.finish();
  }
  const auto append_entry = [&](const Value& key, const Value& item) {
    if (out.size() > 0) out.append("&", false);
    append_url_quoted(in, out, key, true);
    out.append("=", false);
    append_url_quoted(in, out, item, true);
  };
  if (value.is(Kind::kDict)) {
    for (const auto& [key, item] : value.dict().entries) append_entry(key, item);
    return out.finish();
  }
  for (const Value& entry : to_items(in, value)) {
    const std::vector<Value> pair = to_items(in, entry);
    if (pair.size() != 2) fail("urlencode needs pairs of a name and a value");
    append_entry(pair[0], pair[1]);
  }
  return out.finish();
}

std::optional<double> as_float(const Value& value) {
  if (value.is_undefined()) fail(value.why_undefined());
  if (value.is_number()) return value.real();
  return value.is_text() ? parse_float(value.text().view) : std::nullopt;
}

bool text_is_tainted(const Value& value) { return value.is_text() ? value.text().taint.any() : value.tainted(); }

Value filesizeformat_filter(Interpreter& in, const Value& value, const Args& args) {
  const Bound bound("filesizeformat", args, {"binary"});
  const auto bytes = as_float(value);
  if (!bytes.has_value()) fail("filesizeformat needs a number");
  const bool binary = bound.flag(0, false), tainted = text_is_tainted(value);
  const double base = binary ? 1024 : 1000;
  if (*bytes == 1) return in.text("1 Byte", tainted);
  if (*bytes < base) return in.text(fmt::format("{} Bytes", truncate_to_int(*bytes)), tainted);
  constexpr std::string_view kPrefixes = "kMGTPEZY";
  double unit = base;
  for (size_t i = 0; i < kPrefixes.size(); ++i) {
    unit *= base;
    if (*bytes >= unit && i + 1 < kPrefixes.size()) continue;
    const char prefix = binary && i == 0 ? 'K' : kPrefixes[i];
    return in.text(fmt::format("{:.1f} {}{}", base * *bytes / unit, prefix, binary ? "iB" : "B"), tainted);
  }
  return Value();
}

// --- numbers ---

Value int_filter(Interpreter&, const Value& value, const Args& args) {
  const Bound bound("int", args, {"default", "base"});
  if (value.is_undefined()) fail(value.why_undefined());
  const bool tainted = text_is_tainted(value);
  if (value.is_integral()) return Value::integer(value.integer(), tainted);
  if (value.is_text()) {
    if (const auto whole = parse_int(value.text().view, bound.integer(1, 10))) return Value::integer(*whole, tainted);
  }
  const auto number = as_float(value);
  const bool finite = number.has_value() && std::isfinite(*number);
  if (finite || (value.is(Kind::kFloat) && std::isinf(value.real())))
    return Value::integer(truncate_to_int(*number), tainted);
  return bound.get(0, Value::integer(0));
}

Value float_filter(Interpreter&, const Value& value, const Args& args) {
  const Bound bound("float", args, {"default"});
  const auto number = as_float(value);
  return number.has_value() ? Value::real(*number, text_is_tainted(value)) : bound.get(0, Value::real(0));
}

Value abs_filter(Interpreter&, const Value& value, const Args& args) {
  Bound("abs", args, {});
  if (value.is_undefined()) fail(value.why_undefined());
  if (value.is_integral()) {
    return Value::integer(value.integer() < 0 ? subtract_ints(0, value.integer()) : value.integer(), value.tainted());
  }
  if (value.is_number()) return Value::real(std::fabs(value.real()), value.tainted());
  fail(fmt::format("abs needs a number, not a value of type {}", type_name(value)));
}

// round() of a whole number to tens, hundreds, ...: to the nearest, ties to even.
int64_t round_int(int64_t value, int64_t digits) {
  if (digits >= 0) return value;
  if (digits < -18) return 0;
  const int64_t unit = power_ints(10, -digits);
  const int64_t below = floor_divide(value, unit), rest = floor_modulo(value, unit);
  const bool up = rest > unit - rest || (rest == unit - rest && (below & 1) != 0);
  return multiply_ints(add_ints(below, up ? 1 : 0), unit);
}

Value round_filter(Interpreter&, const Value& value, const Args& args) {
  const Bound bound("round", args, {"precision", "method"});
  if (value.is_undefined()) fail(value.why_undefined());
  const std::string_view method = bound.has(1) ? bound.text(1).view : "common";
  if (method != "common" && method != "ceil" && method != "floor")
    fail("the method of round must be common, ceil or floor");
  if (!value.is_number()) fail(fmt::format("round needs a number, not a value of type {}", type_name(value)));
  const int64_t digits = bound.integer(0, 0);
  if (method == "common") {
    if (value.is_integral()) return Value::integer(round_int(value.integer(), digits), value.tainted());
    return Value::real(round_float(value.real(), digits), value.tainted());
  }
  const double scale = std::pow(10.0, static_cast<double>(digits));
  const double scaled = value.real() * scale;
  if (!std::isfinite(scaled) || scale == 0) fail("a number is too large to be rounded");
  const double whole = (method == "ceil" ? std::ceil(scaled) : std::floor(scaled)) + 0.0;  // never -0.0
  return Value::real(whole / scale, value.tainted());
}

// --- JSON ---

Value tojson_filter(Interpreter& in, const Value& value, const Args& args) {
  const Bound bound("tojson", args, {"ensure_ascii", "indent", "separators", "sort_keys"});
  JsonStyle style;
  style.ensure_ascii = bound.flag(0, false);
  style.sort_keys = bound.flag(3, false);
  if (bound.has_value(1)) {
    constexpr int64_t kMostBlanks = 1000;
    style.indent =
        bound[1].is_text()
            ? std::string(bound.text(1).view)
            : std::string(static_cast<size_t>(std::clamp<int64_t>(bound.integer(1, 0), 0, kMostBlanks)), ' ');
    style.item_separator.assign(1, ',');
  }
  if (bound.has_value(2)) {
    const std::vector<Value> separators = to_items(in, bound[2]);
    if (separators.size() != 2) fail("tojson needs two separators");
    style.item_separator = need_text(separators[0], "a separator").view;
    style.key_separator = need_text(separators[1], "a separator").view;
  }
  return to_json(in, value, style);
}

Value unsupported_filter(Interpreter&, const Value&, const Args&) {
  fail("this filter is not supported in chat templates");
}

constexpr std::array kFilters = {
    FilterEntry{"abs", abs_filter},
    FilterEntry{"capitalize", case_filter<capitalize>},
    FilterEntry{"center", center_filter},
    FilterEntry{"e", escape_filter},
    FilterEntry{"escape", escape_filter},
    FilterEntry{"filesizeformat", filesizeformat_filter},
    FilterEntry{"float", float_filter},
    FilterEntry{"forceescape", forceescape_filter},
    FilterEntry{"format", format_filter},
    FilterEntry{"indent", indent_filter},
    FilterEntry{"int", int_filter},
    FilterEntry{"lower", case_filter<lower>},
    FilterEntry{"pprint", unsupported_filter},
    FilterEntry{"random", unsupported_filter},
    FilterEntry{"replace", replace_filter},
    FilterEntry{"round", round_filter},
    FilterEntry{"safe", safe_filter},
    FilterEntry{"string", string_filter},
    FilterEntry{"striptags", unsupported_filter},
    FilterEntry{"title", case_filter<title_words>},
    FilterEntry{"tojson", tojson_filter},
    FilterEntry{"trim", trim_filter},
    FilterEntry{"truncate", truncate_filter},
    FilterEntry{"upper", case_filter<upper>},
    FilterEntry{"urlencode", urlencode_filter},
    FilterEntry{"urlize", unsupported_filter},
    FilterEntry{"wordcount", wordcount_filter},
    FilterEntry{"wordwrap", unsupported_filter},
    FilterEntry{"xmlattr", xmlattr_filter},
};

}  // namespace

std::span<const FilterEntry> text_filters() { return kFilters; }

}  // namespace idefics::jinja
