#include "text/jinja/format.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "base/utf8.h"
#include "text/jinja/interpreter.h"
#include "text/jinja/methods.h"
#include "text/jinja/numbers.h"
#include "text/jinja/text_ops.h"

namespace idefics::jinja {
namespace {

constexpr int64_t kMostDigits = 10'000;  // of a precision

// How one value is to be written; what both ways of formatting have in common.
struct Spec {
  std::string_view fill = " ";
  char align = '\0';  // '<' '>' '^' '=' or none given
  char sign = '-';    // '+', ' ' or '-'
  bool alternate = false;
  bool fill_tainted = false;
  int64_t width = 0;
  std::optional<int64_t> precision;
  char grouping = '\0';  // ',' or '_'
  char type = '\0';
};

std::string in_base(uint64_t value, unsigned base, bool upper_case) {
  std::string digits;
  do {
    const auto digit = static_cast<char>(value % base);
    digits += static_cast<char>(digit < 10 ? '0' + digit : (upper_case ? 'A' : 'a') + digit - 10);
    value /= base;
  } while (value > 0);
  return {digits.rbegin(), digits.rend()};
}

std::string c_format_float(double value, char type, int64_t precision, bool alternate) {
  if (precision > kMostDigits) fail("a format asks for too many digits");
  const std::string pattern = std::string(alternate ? "%#.*" : "%.*") + type;
  std::string out(static_cast<size_t>(precision) + 400, '\0');
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
  const int size = std::snprintf(out.data(), out.size(), pattern.c_str(), static_cast<int>(precision), value);
#pragma GCC diagnostic pop
  out.resize(static_cast<size_t>(size));
  return out;
}

void group_digits(std::string& digits, char separator, size_t size) {
  const size_t end = std::min(digits.find_first_not_of("0123456789abcdefABCDEF"), digits.size());
  for (size_t at = end; at > size; at -= size) digits.insert(at - size, 1, separator);
}

// Sign, prefix ("0x") and digits apart, so that zeros can go between.
struct NumberText {
  std::string sign, prefix, digits;
};

std::string sign_of(bool negative, char sign) {
  return std::string(negative || sign != '-' ? 1 : 0, negative ? '-' : sign);
}

NumberText int_text(int64_t value, const Spec& spec) {
  NumberText out;
  const uint64_t magnitude = value < 0 ? uint64_t{0} - static_cast<uint64_t>(value) : static_cast<uint64_t>(value);
  const unsigned base = spec.type == 'x' || spec.type == 'X' ? 16 : spec.type == 'o' ? 8 : spec.type == 'b' ? 2 : 10;
  out.sign = sign_of(value < 0, spec.sign);
  out.digits = in_base(magnitude, base, spec.type == 'X');
  if (spec.alternate && base != 10) out.prefix = std::string("0") + spec.type;
  if (spec.grouping != '\0') group_digits(out.digits, spec.grouping, base == 10 ? 3 : 4);
  return out;
}

NumberText float_text(double value, const Spec& spec) {
  NumberText out;
  out.sign = sign_of(std::signbit(value) && !std::isnan(value), spec.sign);
  value = std::fabs(value);
  if (spec.type == '\0' && !spec.precision.has_value()) {
    out.digits = float_repr(value);
  } else if (spec.type == '\0') {
    out.digits = c_format_float(value, 'g', std::max<int64_t>(1, *spec.precision), spec.alternate);
    if (out.digits.find_first_not_of("0123456789") == std::string::npos) out.digits += ".0";
  } else if (spec.type == '%') {
    out.digits = c_format_float(value * 100, 'f', spec.precision.value_or(6), spec.alternate) + "%";
  } else {
    out.digits = c_format_float(value, spec.type == 'n' ? 'g' : spec.type, spec.precision.value_or(6), spec.alternate);
  }
  if (spec.grouping != '\0') group_digits(out.digits, spec.grouping, 3);
  return out;
}

// --- alignment ---

void append_aligned(TextBuilder& out, const Text& text, const Spec& spec, char standard) {
  const int64_t room = std::max<int64_t>(0, spec.width - static_cast<int64_t>(text.length));
  const char align = spec.align == '\0' ? standard : spec.align;
  const int64_t left = align == '<' ? 0 : align == '^' ? room / 2 : room;
  out.append(pad(out.budget(), text, left, room - left, {spec.fill, spec.fill_tainted}).text());
}

void append_number(TextBuilder& out, const NumberText& number, const Spec& spec, bool tainted) {
  const std::string head = number.sign + number.prefix;
  if (spec.align != '=') {
    const Value text = make_text(&out.budget(), head + number.digits, tainted);
    return append_aligned(out, text.text(), spec, '>');
  }
  const int64_t room = spec.width - static_cast<int64_t>(head.size() + number.digits.size());
  out.append(head, tainted);
  if (room > 0) out.append_repeated(spec.fill, static_cast<size_t>(room), tainted || spec.fill_tainted);
  out.append(number.digits, tainted);
}

Value cut_text(Budget& budget, const Value& text, const Spec& spec) {
  return spec.precision.has_value() ? slice_text(budget, text.text(), 0, *spec.precision) : text;
}

Value character(Budget& budget, int64_t code, bool tainted) {
  if (code < 0 || code > 0x10ffff || (code >= 0xd800 && code < 0xe000))
    fail("a format of a character got no character");
  TextBuilder out(budget);
  out.append(static_cast<char32_t>(code), tainted);
  return out.finish();
}

Value repr_text(Budget& budget, const Value& value) {
  TextBuilder out(budget);
  append_repr(out, value);
  return out.finish();
}

// ascii(): repr() with \x, \u and \U for everything beyond ASCII.
Value ascii_text(Budget& budget, const Value& value) {
  const Value repr = repr_text(budget, value);
  TextBuilder out(budget);
  const std::string_view view = repr.text().view;
  Taint::Cursor taint(repr.text().taint);
  for (size_t at = 0; at < view.size();) {
    const CodePoint c = decode_utf8(view, at);
    const auto code = static_cast<uint32_t>(c.value);
    const bool tainted = taint.at(at);
    out.append(code < 0x80      ? std::string(1, static_cast<char>(code))
               : code < 0x100   ? fmt::format("\\x{:02x}", code)
               : code < 0x10000 ? fmt::format("\\u{:04x}", code)
                                : fmt::format("\\U{:08x}", code),
               tainted);
    at += static_cast<size_t>(c.length);
  }
  return out.finish();
}

// --- "%" ---

class PercentFormatter {
 public:
  PercentFormatter(Interpreter& in, const Text& format, const Value& values)
      : budget_(in.budget()), format_(format), view_(format.view), values_(values), out_(budget_) {}

  Value run() {
    while (at_ < view_.size()) {
      const size_t percent = std::min(view_.find('%', at_), view_.size());
      out_.append(format_, at_, percent);
      at_ = percent;
      if (at_ < view_.size()) directive();
    }
    const bool mapping = values_.is(Kind::kDict) || values_.is(Kind::kList);
    if (next_ < count() && !mapping) fail("a format got more values than it uses");
    return out_.finish(format_.markup);
  }

 private:
  size_t count() const { return values_.is(Kind::kTuple) ? values_.items().size() : 1; }

  Value next_value() {
    if (next_ >= count()) fail("a format got fewer values than it uses");
    const size_t i = next_++;
    return values_.is(Kind::kTuple) ? values_.items()[i] : values_;
  }

  char peek() const {
    if (at_ >= view_.size()) fail("a format ends inside a directive");
    return view_[at_];
  }

  std::optional<Value> key() {
    if (peek() != '(') return std::nullopt;
    size_t end = at_ + 1;
    for (int open = 1; end < view_.size(); ++end) {
      open += view_[end] == '(' ? 1 : view_[end] == ')' ? -1 : 0;
      if (open == 0) break;
    }
    if (end >= view_.size()) fail("a format ends inside a name");
    if (!values_.is(Kind::kDict)) fail("a format with names needs a dict");
    const Value* value = values_.dict().find(view_.substr(at_ + 1, end - at_ - 1));
    if (value == nullptr) fail("a format names a value that is not there");
    at_ = end + 1;
    return *value;
  }

  int64_t number() {
    if (peek() == '*') {
      ++at_;
      return need_integer(next_value(), "a format");
    }
    int64_t value = 0;
    while (at_ < view_.size() && view_[at_] >= '0' && view_[at_] <= '9') {
      value = add_ints(multiply_ints(value, 10), view_[at_++] - '0');
    }
    return value;
  }

  void directive() {
    ++at_;
    const auto named = key();
    Spec spec;
    bool zeros = false, left = false;
    for (; std::string_view("-+ #0").find(peek()) != std::string_view::npos; ++at_) {
      const char flag = peek();
      if (flag == '-') left = true;
      if (flag == '0') zeros = true;
      if (flag == '#') spec.alternate = true;
      if (flag == '+' || (flag == ' ' && spec.sign != '+')) spec.sign = flag;
    }
    spec.width = number();
    if (spec.width < 0) {
      left = true;
      spec.width = subtract_ints(0, spec.width);
    }
    if (peek() == '.') {
      ++at_;
      spec.precision = std::max<int64_t>(0, number());
    }
    if (std::string_view("hlL").find(peek()) != std::string_view::npos) ++at_;
    spec.type = peek();
    ++at_;
    if (spec.type == '%') return out_.append("%", false);
    spec.align = left ? '<' : zeros ? '=' : '\0';
    if (zeros && !left) spec.fill = "0";
    convert(named.has_value() ? *named : next_value(), spec);
  }

  void convert(const Value& value, Spec& spec) {
    switch (spec.type) {
      case 's': return text(to_text(budget_, value), spec);
      case 'r': return text(repr_text(budget_, value), spec);
      case 'a': return text(ascii_text(budget_, value), spec);
      case 'c':
        if (value.is_text() && value.text().length == 1) return text(value, spec);
        return text(character(budget_, need_integer(value, "a format of a character"), value.tainted()), spec);
      case 'd':
      case 'i':
      case 'u': return integer(value, spec);
      case 'x':
      case 'X':
      case 'o': need_integer(value, "a format"); return integer(value, spec);
      case 'e':
      case 'E':
      case 'f':
      case 'F':
      case 'g':
      case 'G':
        if (value.is_undefined()) fail(value.why_undefined());
        if (!value.is_number()) fail("a format of a number got no number");
        return append_number(out_, float_text(value.real(), spec), spec, value.tainted());
      default: fail("a format holds an unknown directive");
    }
  }

  void text(const Value& value, Spec spec) {
    if (spec.align == '=') spec.align = '\0';
    spec.fill = " ";
    const Value escaped = text_for(budget_, format_, value);
    append_aligned(out_, cut_text(budget_, escaped, spec).text(), spec, '>');
  }

  void integer(const Value& value, const Spec& spec) {
    if (value.is_undefined()) fail(value.why_undefined());
    if (!value.is_number()) fail("a format of a number got no number");
    NumberText number = int_text(value.is_integral() ? value.integer() : truncate_to_int(value.real()), spec);
    const int64_t digits = spec.precision.value_or(0);
    if (digits > kMostDigits) fail("a format asks for too many digits");
    if (digits > static_cast<int64_t>(number.digits.size())) {
      number.digits.insert(0, static_cast<size_t>(digits) - number.digits.size(), '0');
    }
    append_number(out_, number, spec, value.tainted());
  }

  Budget& budget_;
  const Text& format_;
  const std::string_view view_;
  const Value& values_;
  size_t at_ = 0, next_ = 0;
  TextBuilder out_;
};

// --- "{}" ---

class BraceFormatter {
 public:
  BraceFormatter(Interpreter& in, const Args& args) : in_(in), budget_(in.budget()), args_(args) {}

  Value run(const Text& format) {
    TextBuilder out(budget_);
    markup_ = format.markup;
    write(format, out, 2);
    return out.finish(format.markup);
  }

 private:
  // `levels`: how deep fields may stand inside the format of other fields.
  void write(const Text& format, TextBuilder& out, int levels) {
    if (levels == 0) fail("a format nests too deeply");
    const std::string_view view = format.view;
    for (size_t at = 0; at < view.size();) {
      budget_.step();
      const size_t brace = std::min(view.find_first_of("{}", at), view.size());
      out.append(format, at, brace);
      at = brace;
      if (at >= view.size()) return;
      if (at + 1 < view.size() && view[at + 1] == view[at]) {
        out.append(format, at, at + 1);
        at += 2;
      } else if (view[at] == '}') {
        fail("a format has a single '}'");
      } else {
        at = field(format, at + 1, out, levels);
      }
    }
  }

  // The field that begins behind its brace at `at`; returns where the format goes on.
  size_t field(const Text& format, size_t at, TextBuilder& out, int levels) {
    const std::string_view view = format.view;
    const size_t begin = at;
    int open = 1;
    size_t split = std::string_view::npos;  // where the name ends
    bool in_brackets = false;
    for (; at < view.size(); ++at) {
      const char c = view[at];
      if (c == '[' && split == std::string_view::npos) in_brackets = true;
      if (c == ']') in_brackets = false;
      if (c == '{') ++open;
      if (c == '}' && --open == 0) break;
      if ((c == '!' || c == ':') && split == std::string_view::npos && !in_brackets) split = at;
    }
    if (at >= view.size()) fail("a format has a single '{'");
    const size_t name_end = std::min(split, at);
    Value value = get(view.substr(begin, name_end - begin));
    size_t spec_begin = name_end;
    if (spec_begin < at && view[spec_begin] == '!') {
      if (spec_begin + 1 >= at) fail("a format lacks a conversion behind '!'");
      value = converted(value, view[spec_begin + 1]);
      spec_begin += 2;
      if (spec_begin < at && view[spec_begin] != ':') fail("a format expects ':' behind a conversion");
    }
    TextBuilder spec(budget_);
    if (spec_begin < at) write(make_part(budget_, format, spec_begin + 1, at).text(), spec, levels - 1);
    append(out, value, spec.finish().text());
    return at + 1;
  }

  Value converted(const Value& value, char conversion) {
    if (conversion == 's') return to_text(budget_, value);
    if (conversion == 'r') return repr_text(budget_, value);
    if (conversion == 'a') return ascii_text(budget_, value);
    fail("a format holds an unknown conversion");
  }

  // The value of "name.attribute[item]".
  Value get(std::string_view name) {
    const size_t end = std::min(name.find_first_of(".["), name.size());
    Value value = first(name.substr(0, end));
    std::string_view rest = name.substr(end);
    while (!rest.empty()) {
      budget_.step();
      const bool item = rest[0] == '[';
      rest.remove_prefix(1);
      const size_t stop = std::min(item ? rest.find(']') : rest.find_first_of(".["), rest.size());
      const std::string_view part = rest.substr(0, stop);
      if (part.empty() || (item && stop == rest.size())) fail("a format holds an incomplete name");
      value = item ? get_item(in_, value, index(part)) : get_attribute(in_, value, part);
      rest.remove_prefix(item ? stop + 1 : stop);
      if (item && !rest.empty() && rest[0] != '.' && rest[0] != '[') fail("a format holds an incomplete name");
    }
    return value;
  }

  static bool is_number(std::string_view text) {
    return !text.empty() && text.size() < 10 &&
           std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
  }
  Value index(std::string_view part) { return is_number(part) ? Value::integer(*parse_int(part)) : in_.text(part); }

  Value first(std::string_view name) {
    if (!name.empty() && !is_number(name)) {
      const Value* found = args_.find(name);
      if (found == nullptr) fail(fmt::format("a format names {}, which is not there", quote(name)));
      return *found;
    }
    (name.empty() ? automatic_ : manual_) = true;
    if (automatic_ && manual_) fail("a format mixes numbered and unnumbered fields");
    const size_t i = name.empty() ? next_++ : static_cast<size_t>(*parse_int(name));
    if (i >= args_.positional.size()) fail("a format got fewer values than it uses");
    return args_.positional[i];
  }

  // --- format specifications ---

  static Spec parse(const Text& text) {
    Spec spec;
    std::string_view rest = text.view;
    spec.fill_tainted = text.taint.any();
    const auto is_align = [](char c) { return c == '<' || c == '>' || c == '^' || c == '='; };
    const size_t fill = rest.empty() ? 0 : static_cast<size_t>(decode_utf8(rest, 0).length);
    if (rest.size() > fill && is_align(rest[fill])) {
      spec.fill = rest.substr(0, fill);
      spec.align = rest[fill];
      rest.remove_prefix(fill + 1);
    } else if (!rest.empty() && is_align(rest[0])) {
      spec.align = rest[0];
      rest.remove_prefix(1);
    }
    const auto take = [&](std::string_view set) {
      if (rest.empty() || set.find(rest[0]) == std::string_view::npos) return '\0';
      const char c = rest[0];
      rest.remove_prefix(1);
      return c;
    };
    if (const char sign = take("+- ")) spec.sign = sign;
    spec.alternate = take("#") != '\0';
    if (take("0") != '\0' && spec.align == '\0') {
      spec.align = '=';
      spec.fill = "0";
    }
    spec.width = digits(rest).value_or(0);
    spec.grouping = take(",_");
    if (take(".") != '\0') {
      spec.precision = digits(rest);
      if (!spec.precision.has_value()) fail("a format lacks its precision");
    }
    spec.type = take("bcdeEfFgGnosxX%");
    if (!rest.empty()) fail("a format specification is not valid");
    return spec;
  }

  static std::optional<int64_t> digits(std::string_view& rest) {
    size_t end = 0;
    while (end < rest.size() && rest[end] >= '0' && rest[end] <= '9') ++end;
    const auto value = end == 0 ? std::nullopt : parse_int(rest.substr(0, end));
    rest.remove_prefix(end);
    return value;
  }

  void append(TextBuilder& out, const Value& value, const Text& spec_text) {
    if (spec_text.view.empty()) {
      if (markup_) return out.append(escape_markup(budget_, value).text());
      return append_str(out, value);
    }
    Spec spec = parse(spec_text);
    if (value.is_text()) {
      if (spec.type != '\0' && spec.type != 's') fail("a format of a number got a text");
      if (spec.align == '=' && spec.fill == "0") spec.align = '<';
      if (spec.align == '=') fail("a text cannot be aligned with '='");
      const Value escaped = markup_ ? escape_markup(budget_, value) : value;
      return append_aligned(out, cut_text(budget_, escaped, spec).text(), spec, '<');
    }
    if (!value.is_number()) fail(fmt::format("a value of type {} has no format of its own", type_name(value)));
    const bool as_float = spec.type != '\0' && std::string_view("eEfFgG%").find(spec.type) != std::string_view::npos;
    if (value.is(Kind::kFloat) || as_float) {
      if (spec.type != '\0' && !as_float && spec.type != 'n') fail("a format of a whole number got a fraction");
      return append_number(out, float_text(value.real(), spec), spec, value.tainted());
    }
    if (spec.type == 's' || spec.precision.has_value()) fail("a format of a text or a fraction got a whole number");
    if (spec.type == 'c')
      return append_aligned(out, character(budget_, value.integer(), value.tainted()).text(), spec, '<');
    append_number(out, int_text(value.integer(), spec), spec, value.tainted());
  }

  Interpreter& in_;
  Budget& budget_;
  const Args& args_;
  bool markup_ = false;
  bool automatic_ = false, manual_ = false;
  size_t next_ = 0;
};

}  // namespace

Value percent_format(Interpreter& in, const Text& format, const Value& values) {
  return PercentFormatter(in, format, values).run();
}

Value brace_format(Interpreter& in, const Text& format, const Args& args) {
  return BraceFormatter(in, args).run(format);
}

}  // namespace idefics::jinja
