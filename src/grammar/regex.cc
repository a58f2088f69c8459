#include "grammar/regex.h"

#include <fmt/format.h>

#include <optional>

#include "base/utf8.h"

namespace idefics::grammar {

namespace {

constexpr int kMaxRepeat = 100'000;
constexpr size_t kMaxClassRanges = 4096;

CodePoints digits() { return CodePoints('0', '9'); }

CodePoints word() {
  CodePoints set = digits();
  set.add('a', 'z');
  set.add('A', 'Z');
  set.add('_', '_');
  return set;
}

// ECMAScript's WhiteSpace and LineTerminator.
CodePoints space() {
  CodePoints set('\t', '\r');
  constexpr char32_t kSingles[] = {' ', 0xa0, 0x1680, 0x2028, 0x2029, 0x202f, 0x205f, 0x3000, 0xfeff};
  for (const char32_t c : kSingles) set.add(c, c);
  set.add(0x2000, 0x200a);
  return set;
}

CodePoints line_ends() {
  CodePoints set('\n', '\n');
  set.add('\r', '\r');
  set.add(0x2028, 0x2029);
  return set;
}

class Parser {
 public:
  Parser(std::string_view pattern, const std::string& where, bool json, Budget& budget)
      : text_(pattern), where_(where), json_(json), budget_(budget) {}

  Expr run() {
    if (!is_utf8(text_)) fail(where_ + ": is not valid UTF-8");
    std::vector<Expr> branches;
    do {
      branches.push_back(top_branch());
    } while (take('|'));
    if (at_ < text_.size()) error("')' without '('");
    return choice(std::move(branches));
  }

 private:
  [[noreturn]] void error(std::string_view problem) const {
    fail(fmt::format("{}: {} at offset {}", where_, problem, at_));
  }

  bool more() const { return at_ < text_.size(); }
  char peek() const { return more() ? text_[at_] : '\0'; }
  bool sees(std::string_view what) const { return text_.substr(at_).starts_with(what); }
  bool take(char c) {
    if (!more() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  bool take(std::string_view what) {
    if (!sees(what)) return false;
    at_ += what.size();
    return true;
  }
  char32_t take_character() {
    const CodePoint c = decode_utf8(text_, at_);
    at_ += static_cast<size_t>(c.length);
    return c.value;
  }
  Expr characters(const CodePoints& set) const { return json_ ? json_characters(set) : utf8(set); }

  // An alternative of the whole expression, the only place for anchors. Without them, a JSON pattern may match
  // anywhere.
  Expr top_branch() {
    const bool from_start = take('^');
    Expr body = branch(0);
    const bool to_end = take('$');
    if (to_end && more() && peek() != '|' && peek() != ')') error("'$' is supported at the end only");
    if (!json_) return body;
    const Expr any = repeat(characters(CodePoints::all()), 0, Expression::kUnbounded);
    std::vector<Expr> parts;
    if (!from_start) parts.push_back(any);
    parts.push_back(std::move(body));
    if (!to_end) parts.push_back(any);
    return sequence(std::move(parts));
  }

  Expr branch(int depth) {
    budget_.check_nesting(depth, where_);
    std::vector<Expr> parts = {text("")};
    while (more() && peek() != '|' && peek() != ')') {
      if (depth == 0 && peek() == '$') break;
      Expr atom = quantified(depth);
      budget_.take_states(1);  // bounds the expression itself
      parts.push_back(std::move(atom));
    }
    return sequence(std::move(parts));
  }

  Expr quantified(int depth) {
    Expr part = atom(depth);
    int min = 0, max = 0;
    bool any = false;
    while (take_quantifier(min, max)) {
      if (any) error("a quantifier follows a quantifier");
      any = true;
      if (!take('?') && peek() == '+') error("possessive quantifiers are not supported");  // lazy: the same texts
      part = repeat(std::move(part), min, max);
    }
    return part;
  }

  bool take_quantifier(int& min, int& max) {
    if (take('*')) return set_range(min, max, 0, Expression::kUnbounded);
    if (take('+')) return set_range(min, max, 1, Expression::kUnbounded);
    if (take('?')) return set_range(min, max, 0, 1);
    if (!take('{')) return false;
    min = max = number();
    if (take(',')) max = peek() == '}' ? Expression::kUnbounded : number();
    if (!take('}')) error("wanted '}' to end a repetition");
    if (max != Expression::kUnbounded && max < min) error("a repetition has a maximum below its minimum");
    return true;
  }

  static bool set_range(int& min, int& max, int low, int high) {
    min = low;
    max = high;
    return true;
  }

  int number() {
    if (peek() < '0' || peek() > '9') error("wanted a number in a repetition (a literal '{' is written \\{)");
    int value = 0;
    while (peek() >= '0' && peek() <= '9') {
      value = value * 10 + (text_[at_++] - '0');
      if (value > kMaxRepeat) error(fmt::format("a repetition is over {}", kMaxRepeat));
    }
    return value;
  }

  Expr atom(int depth) {
    switch (peek()) {
      case '(': return group(depth);
      case '[': return characters(character_class());
      case '.': ++at_; return characters(line_ends().complement());
      case '\\': return characters(escape(false));
      case '^':
      case '$': error("an anchor is supported at the ends of the expression only");
      case '*':
      case '+':
      case '?': error("a quantifier has nothing to repeat");
      case '{': error("a literal '{' must be escaped");
      default: {
        const char32_t c = take_character();
        return characters(CodePoints(c, c));
      }
    }
  }

  Expr group(int depth) {
    ++at_;
    if (take('?')) {
      if (sees("<=") || sees("<!") || sees("=") || sees("!")) error("lookaround is not supported");
      if (take('<') || take("P<")) {
        while (more() && peek() != '>') ++at_;
        if (!take('>')) error("wanted '>' after the name of a group");
      } else if (!take(':')) {
        error("this kind of group is not supported");
      }
    }
    std::vector<Expr> branches;
    do {
      branches.push_back(branch(depth + 1));
    } while (take('|'));
    if (!take(')')) error("wanted ')'");
    return choice(std::move(branches));
  }

  CodePoints character_class() {
    ++at_;
    const bool negated = take('^');
    CodePoints set;
    while (more() && peek() != ']') {
      if (sees("[:") || sees("[=") || sees("[.")) error("POSIX classes are not supported");
      CodePoints low = class_atom();
      const bool is_range = peek() == '-' && at_ + 1 < text_.size() && text_[at_ + 1] != ']';
      if (is_range) {
        ++at_;
        const CodePoints high = class_atom();
        const auto first = single(low), last = single(high);
        if (!first || !last) error("a range in a class needs characters at both ends");
        if (*first > *last) error("a range in a class is out of order");
        low = CodePoints(*first, *last);
      }
      set.add(low);
      if (set.ranges().size() > kMaxClassRanges) error("a class has too many ranges");
    }
    if (!take(']')) error("wanted ']'");
    return negated ? set.complement() : set;
  }

  CodePoints class_atom() {
    if (!more()) error("wanted ']'");
    if (peek() == '\\') return escape(true);
    const char32_t c = take_character();
    return CodePoints(c, c);
  }

  static std::optional<char32_t> single(const CodePoints& set) {
    if (set.ranges().size() != 1 || set.ranges()[0].first != set.ranges()[0].second) return std::nullopt;
    return set.ranges()[0].first;
  }

  CodePoints escape(bool in_class) {
    ++at_;
    if (!more()) error("the expression ends with '\\'");
    const char32_t c = take_character();
    switch (c) {
      case 'd': return digits();
      case 'D': return digits().complement();
      case 'w': return word();
      case 'W': return word().complement();
      case 's': return space();
      case 'S': return space().complement();
      case 'n': return CodePoints('\n', '\n');
      case 'r': return CodePoints('\r', '\r');
      case 't': return CodePoints('\t', '\t');
      case 'f': return CodePoints('\f', '\f');
      case 'v': return CodePoints('\v', '\v');
      case 'x': return literal(hex(2));
      case 'u': return literal(unicode_escape());
      case '0':
        if (peek() >= '0' && peek() <= '9') error("octal escapes are not supported");
        return CodePoints(0, 0);
      case 'b':
        if (in_class) return CodePoints('\b', '\b');
        error("\\b is not supported");
      default: break;
    }
    if (c >= '1' && c <= '9') error("backreferences are not supported");
    if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) {
      error(fmt::format("the escape \\{} is not supported", static_cast<char>(c)));
    }
    return literal(c);
  }

  CodePoints literal(char32_t c) const {
    if (c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff)) error("an escape is no character");
    return CodePoints(c, c);
  }

  char32_t unicode_escape() {
    if (take('{')) {
      char32_t value = 0;
      int count = 0;
      while (peek() != '}') {
        value = value * 16 + hex(1);
        if (++count > 6) error("an escape is no character");
      }
      if (count == 0) error("an escape is no character");
      ++at_;
      return value;
    }
    const char32_t first = hex(4);
    if (first < 0xd800 || first > 0xdbff || !sees("\\u")) return first;
    at_ += 2;
    const char32_t second = hex(4);
    if (second < 0xdc00 || second > 0xdfff) error("an escape is half a surrogate pair");
    return 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
  }

  char32_t hex(int count) {
    char32_t value = 0;
    for (int i = 0; i < count; ++i) {
      const int digit = hex_digit(peek());
      if (digit < 0) error("wanted a hexadecimal digit");
      value = value * 16 + static_cast<char32_t>(digit);
      ++at_;
    }
    return value;
  }

  std::string_view text_;
  const std::string& where_;
  bool json_;
  Budget& budget_;
  size_t at_ = 0;
};

}  // namespace

std::string json_escape(char32_t c) {
  switch (c) {
    case '"': return "\\\"";
    case '\\': return "\\\\";
    case '\b': return "\\b";
    case '\f': return "\\f";
    case '\n': return "\\n";
    case '\r': return "\\r";
    case '\t': return "\\t";
    default: return fmt::format("\\u{:04x}", static_cast<uint32_t>(c));
  }
}

Expr json_characters(const CodePoints& set) {
  CodePoints escaped(0, 0x1f);
  escaped.add('"', '"');
  escaped.add('\\', '\\');
  std::vector<Expr> parts = {utf8(set.intersect(escaped.complement()))};
  const CodePoints to_escape = set.intersect(escaped);
  for (const auto& [low, high] : to_escape.ranges()) {
    for (char32_t c = low; c <= high; ++c) parts.push_back(text(json_escape(c)));
  }
  return choice(std::move(parts));
}

Expr parse_regex(std::string_view pattern, const std::string& where, Budget& budget) {
  return Parser(pattern, where, false, budget).run();
}

Expr parse_json_pattern(std::string_view pattern, const std::string& where, Budget& budget) {
  return Parser(pattern, where, true, budget).run();
}

}  // namespace idefics::grammar
