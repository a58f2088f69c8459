// str's methods.
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/utf8.h"
#include "text/jinja/format.h"
#include "text/jinja/interpreter.h"
#include "text/jinja/iterate.h"
#include "text/jinja/methods.h"
#include "text/jinja/text_ops.h"
#include "text/jinja/unicode.h"

namespace idefics::jinja {
namespace {

int64_t count_characters(Budget& budget, std::string_view text) {
  budget.work(text.size() / 8);
  return std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; });
}

// --- case ---

template <Value (*kOp)(Budget&, const Text&)>
Value change_case(Interpreter& in, const Value& self, const Args& args) {
  Bound("the method", args, {});
  return kOp(in.budget(), self.text());
}

// --- stripping and splitting ---

std::optional<std::string_view> optional_text(const Bound& bound, size_t i) {
  return bound.has_value(i) ? std::optional<std::string_view>(bound.text(i).view) : std::nullopt;
}

template <bool kLeft, bool kRight>
Value strip_method(Interpreter& in, const Value& self, const Args& args) {
  const Bound bound("strip", args, {"chars"});
  return strip(in.budget(), self.text(), optional_text(bound, 0), kLeft, kRight);
}

template <std::vector<Value> (*kOp)(Budget&, const Text&, const std::optional<std::string_view>&, int64_t)>
Value split_method(Interpreter& in, const Value& self, const Args& args) {
  const Bound bound("split", args, {"sep", "maxsplit"});
  return make_list(in.budget(), kOp(in.budget(), self.text(), optional_text(bound, 0), bound.integer(1, -1)));
}

Value splitlines_method(Interpreter& in, const Value& self, const Args& args) {
  const Bound bound("splitlines", args, {"keepends"});
  return make_list(in.budget(), split_lines(in.budget(), self.text(), bound.flag(0, false)));
}

template <bool kFromRight>
Value partition_method(Interpreter& in, const Value& self, const Args& args) {
  const Bound bound("partition", args, {"sep"}, 1);
  const Text& text = self.text();
  const Text& separator = bound.text(0);
  if (separator.view.empty()) fail("cannot split a text at nothing");
  const size_t at =
      kFromRight ? find_last(in.budget(), text.view, separator.view) : find(in.budget(), text.view, separator.view);
  if (at == std::string_view::npos) {
    const Value empty = in.text("");
    return make_list(in.budget(),
                     kFromRight ? std::vector<Value>{empty, empty, self} : std::vector<Value>{self, empty, empty},
                     Kind::kTuple);
  }
  const size_t after = at + separator.view.size();
  return make_list(
      in.budget(),
      {make_part(in.budget(), text, 0, at), bound[0], make_part(in.budget(), text, after, text.view.size())},
      Kind::kTuple);
}

template <bool kPrefix>
Value remove_affix(Interpreter& in, const Value& self, const Args& args) {
  const Bound bound(kPrefix ? "removeprefix" : "removesuffix", args, {"affix"}, 1);
  const Text& text = self.text();
  const std::string_view affix = bound.text(0).view;
  if (kPrefix && text.view.starts_with(affix)) return make_part(in.budget(), text, affix.size(), text.view.size());
  if (!kPrefix && text.view.ends_with(affix)) return make_part(in.budget(), text, 0, text.view.size() - affix.size());
  return self;
}

Value replace_method(Interpreter& in, const Value& self, const Args& args) {
  const Bound bound("replace", args, {"old", "new", "count"}, 2);
  bound.text(0);
  bound.text(1);
  const Value with = text_for(in.budget(), self.text(), bound[1]);
  return replace(in.budget(), self.text(), bound.text(0), with.text(), bound.integer(2, -1));
}

Value join_method(Interpreter& in, const Value& self, const Args& args) {
  const Bound bound("join", args, {"iterable"}, 1);
  TextBuilder out(in.budget());
  const auto items = iterate(in, bound[0]);
  bool first = true;
  for (Value item; items->next(in, item); first = false) {
    need_text(item, "join");
    if (!first) out.append(self.text());
    out.append(text_for(in.budget(), self.text(), item).text());
  }
  return out.finish(self.text().markup);
}

// --- searching ---

// The part of a text between two optional bounds in code points.
struct Window {
  size_t begin, end;  // bytes
  int64_t first;      // code points before it
  bool exists;        // false when the start lies behind the end of the text
};

Window window(Budget& budget, const Text& text, const Bound& bound) {
  const int64_t length = static_cast<int64_t>(text.length);
  const auto place = [&](size_t i, int64_t otherwise) {
    const int64_t at = bound.has_value(i) ? bound.integer(i, 0) : otherwise;
    return at < 0 ? std::max<int64_t>(0, at + length) : at;
  };
  const int64_t from = place(1, 0), to = std::min(place(2, length), length);
  if (from > length || from > to) return {0, 0, 0, false};
  const size_t begin = text.offset_of(budget, static_cast<size_t>(from));
  return {begin, text.offset_of(budget, static_cast<size_t>(to)), from, true};
}

int64_t find_in(Interpreter& in, const Text& text, const Bound& bound, bool last) {
  const Window w = window(in.budget(), text, bound);
  if (!w.exists) return -1;
  const std::string_view part = text.view.substr(w.begin, w.end - w.begin);
  const std::string_view needle = bound.text(0).view;
  const size_t at = last ? find_last(in.budget(), part, needle) : find(in.budget(), part, needle);
  return at == std::string_view::npos ? -1 : w.first + count_characters(in.budget(), part.substr(0, at));
}

template <bool kLast, bool kMust>
Value find_method_of(Interpreter& in, const Value& self, const Args& args) {
  const Bound bound(kMust ? "index" : "find", args, {"sub", "start", "end"}, 1);
  const int64_t at = find_in(in, self.text(), bound, kLast);
  if (kMust && at < 0) fail(fmt::format("the text does not contain {}", quote(bound.text(0).view)));
  return Value::integer(at);
}

Value count_method(Interpreter& in, const Value& self, const Args& args) {
  const Bound bound("count", args, {"sub", "start", "end"}, 1);
  const Text& text = self.text();
  const Window w = window(in.budget(), text, bound);
  if (!w.exists) return Value::integer(0);
  const std::string_view part = text.view.substr(w.begin, w.end - w.begin), needle = bound.text(0).view;
  if (needle.empty()) return Value::integer(count_characters(in.budget(), part) + 1);
  int64_t count = 0;
  for (size_t at = 0; (at = find(in.budget(), part, needle, at)) != std::string_view::npos; at += needle.size())
    ++count;
  return Value::integer(count);
}

template <bool kStart>
Value affix_method(Interpreter& in, const Value& self, const Args& args) {
  const Bound bound(kStart ? "startswith" : "endswith", args, {"affix", "start", "end"}, 1);
  const Window w = window(in.budget(), self.text(), bound);
  const auto matches = [&](const Value& affix) {
    const std::string_view view = need_text(affix, kStart ? "startswith" : "endswith").view;
    in.budget().work(view.size());
    const std::string_view part = self.text().view.substr(w.begin, w.end - w.begin);
    return w.exists && (kStart ? part.starts_with(view) : part.ends_with(view));
  };
  if (!bound[0].is(Kind::kTuple)) return Value::boolean(matches(bound[0]));
  return Value::boolean(std::any_of(bound[0].items().begin(), bound[0].items().end(), matches));
}

// --- padding ---

Fill fill_of(const Bound& bound, size_t i) {
  if (!bound.has(i)) return {};
  const Text& fill = bound.text(i);
  if (fill.length != 1) fail("padding needs one character to fill with");
  return {fill.view, fill.taint.any()};
}

enum class Side { kLeft, kRight, kBoth };

template <Side kSide>
Value pad_method(Interpreter& in, const Value& self, const Args& args) {
  const Bound bound("padding", args, {"width", "fillchar"}, 1);
  const Fill fill = fill_of(bound, 1);
  const int64_t width = bound.integer(0, 0);
  if (kSide == Side::kBoth) return center(in.budget(), self.text(), width, fill);
  const int64_t room = std::max<int64_t>(0, width - static_cast<int64_t>(self.text().length));
  return pad(in.budget(), self.text(), kSide == Side::kLeft ? room : 0, kSide == Side::kRight ? room : 0, fill);
}

Value zfill_method(Interpreter& in, const Value& self, const Args& args) {
  const Bound bound("zfill", args, {"width"}, 1);
  const Text& text = self.text();
  const int64_t room = bound.integer(0, 0) - static_cast<int64_t>(text.length);
  const size_t sign = text.view.starts_with('-') || text.view.starts_with('+') ? 1 : 0;
  TextBuilder out(in.budget());
  out.append(text, 0, sign);
  if (room > 0) out.append_repeated("0", static_cast<size_t>(room), false);
  out.append(text, sign, text.view.size());
  return out.finish(text.markup);
}

Value expandtabs_method(Interpreter& in, const Value& self, const Args& args) {
  const Bound bound("expandtabs", args, {"tabsize"});
  const int64_t size = bound.integer(0, 8);
  const Text& text = self.text();
  TextBuilder out(in.budget());
  Taint::Cursor taint(text.taint);
  int64_t column = 0;
  for (size_t at = 0; at < text.view.size();) {
    const size_t length = static_cast<size_t>(decode_utf8(text.view, at).length);
    const char c = text.view[at];
    if (c == '\t') {
      const int64_t blanks = size > 0 ? size - column % size : 0;
      out.append_repeated(" ", static_cast<size_t>(blanks), taint.at(at));
      column += blanks;
    } else {
      out.append(text.view.substr(at, length), taint.at(at));
      column = c == '\n' || c == '\r' ? 0 : column + 1;
    }
    at += length;
  }
  return out.finish(text.markup);
}

// --- questions about characters ---

template <bool (*kIs)(char32_t), bool kOfEmpty = false>
Value all_characters(Interpreter& in, const Value& self, const Args& args) {
  Bound("the method", args, {});
  const std::string_view view = self.text().view;
  in.budget().work(4 * view.size());
  bool all = !view.empty() || kOfEmpty;
  for (size_t at = 0; at < view.size() && all;) {
    const CodePoint c = decode_utf8(view, at);
    all = kIs(c.value);
    at += static_cast<size_t>(c.length);
  }
  return Value::boolean(all);
}

bool is_ascii(char32_t c) { return c < 0x80; }

// Lower (upper): no character of another case, and one of this.
template <bool kUpper>
Value is_case_method(Interpreter& in, const Value& self, const Args& args) {
  Bound("the method", args, {});
  const std::string_view view = self.text().view;
  in.budget().work(8 * view.size());
  bool any = false;
  for (size_t at = 0; at < view.size();) {
    const CodePoint c = decode_utf8(view, at);
    if (is_title(c.value) || (kUpper ? is_lower(c.value) : is_upper(c.value))) return Value::boolean(false);
    any = any || (kUpper ? is_upper(c.value) : is_lower(c.value));
    at += static_cast<size_t>(c.length);
  }
  return Value::boolean(any);
}

Value istitle_method(Interpreter& in, const Value& self, const Args& args) {
  Bound("istitle", args, {});
  const std::string_view view = self.text().view;
  in.budget().work(8 * view.size());
  bool any = false, in_word = false;
  for (size_t at = 0; at < view.size();) {
    const CodePoint c = decode_utf8(view, at);
    at += static_cast<size_t>(c.length);
    if (is_upper(c.value) || is_title(c.value)) {
      if (in_word) return Value::boolean(false);
      any = in_word = true;
    } else if (is_lower(c.value)) {
      if (!in_word) return Value::boolean(false);
    } else {
      in_word = false;
    }
  }
  return Value::boolean(any);
}

Value isidentifier_method(Interpreter& in, const Value& self, const Args& args) {
  Bound("isidentifier", args, {});
  const std::string_view view = self.text().view;
  in.budget().work(4 * view.size());
  bool good = !view.empty();
  for (size_t at = 0; at < view.size() && good;) {
    const CodePoint c = decode_utf8(view, at);
    good = c.value == '_' || is_alpha(c.value) || (at > 0 && is_alnum(c.value));
    at += static_cast<size_t>(c.length);
  }
  return Value::boolean(good);
}

// --- formatting ---

Value format_method(Interpreter& in, const Value& self, const Args& args) {
  return brace_format(in, self.text(), args);
}

Value format_map_method(Interpreter& in, const Value& self, const Args& args) {
  const Bound bound("format_map", args, {"mapping"}, 1);
  if (!bound[0].is(Kind::kDict)) fail("format_map needs a dict");
  Args named;
  for (const auto& entry : bound[0].dict().entries) {
    if (entry.first.is_text()) named.named.push_back(entry);
  }
  return brace_format(in, self.text(), named);
}

Value unsupported_method(Interpreter&, const Value&, const Args&) {
  fail("this method of texts is not supported in chat templates");
}

constexpr std::array kMethods = {
    MethodEntry{"capitalize", change_case<capitalize>},
    MethodEntry{"casefold", unsupported_method},
    MethodEntry{"center", pad_method<Side::kBoth>},
    MethodEntry{"count", count_method},
    MethodEntry{"encode", unsupported_method},
    MethodEntry{"endswith", affix_method<false>},
    MethodEntry{"expandtabs", expandtabs_method},
    MethodEntry{"find", find_method_of<false, false>},
    MethodEntry{"format", format_method},
    MethodEntry{"format_map", format_map_method},
    MethodEntry{"index", find_method_of<false, true>},
    MethodEntry{"isalnum", all_characters<is_alnum>},
    MethodEntry{"isalpha", all_characters<is_alpha>},
    MethodEntry{"isascii", all_characters<is_ascii, true>},
    MethodEntry{"isdecimal", all_characters<is_decimal>},
    MethodEntry{"isdigit", all_characters<is_digit>},
    MethodEntry{"isidentifier", isidentifier_method},
    MethodEntry{"islower", is_case_method<false>},
    MethodEntry{"isnumeric", all_characters<is_numeric>},
    MethodEntry{"isprintable", all_characters<is_printable, true>},
    MethodEntry{"isspace", all_characters<is_space>},
    MethodEntry{"istitle", istitle_method},
    MethodEntry{"isupper", is_case_method<true>},
    MethodEntry{"join", join_method},
    MethodEntry{"ljust", pad_method<Side::kRight>},
    MethodEntry{"lower", change_case<lower>},
    MethodEntry{"lstrip", strip_method<true, false>},
    MethodEntry{"maketrans", unsupported_method},
    MethodEntry{"partition", partition_method<false>},
    MethodEntry{"removeprefix", remove_affix<true>},
    MethodEntry{"removesuffix", remove_affix<false>},
    MethodEntry{"replace", replace_method},
    MethodEntry{"rfind", find_method_of<true, false>},
    MethodEntry{"rindex", find_method_of<true, true>},
    MethodEntry{"rjust", pad_method<Side::kLeft>},
    MethodEntry{"rpartition", partition_method<true>},
    MethodEntry{"rsplit", split_method<split_from_right>},
    MethodEntry{"rstrip", strip_method<false, true>},
    MethodEntry{"split", split_method<split>},
    MethodEntry{"splitlines", splitlines_method},
    MethodEntry{"startswith", affix_method<true>},
    MethodEntry{"strip", strip_method<true, true>},
    MethodEntry{"swapcase", change_case<swap_case>},
    MethodEntry{"title", change_case<title>},
    MethodEntry{"translate", unsupported_method},
    MethodEntry{"upper", change_case<upper>},
    MethodEntry{"zfill", zfill_method},
};

}  // namespace

const MethodEntry* find_text_method(std::string_view name) {
  const auto* at =
      std::find_if(kMethods.begin(), kMethods.end(), [&](const MethodEntry& entry) { return entry.name == name; });
  return at == kMethods.end() ? nullptr : at;
}

}  // namespace idefics::jinja
