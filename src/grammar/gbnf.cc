#include "grammar/gbnf.h"

#include <fmt/format.h>

#include <unordered_map>

#include "base/utf8.h"

namespace idefics::grammar {

namespace {

constexpr int kMaxRepeat = 100'000;
constexpr size_t kMaxClassRanges = 4096;

class Parser {
 public:
  Parser(std::string_view text, Budget& budget) : text_(text), budget_(budget) {}

  Grammar run() {
    if (!is_utf8(text_)) fail("grammar: is not valid UTF-8");
    skip(true);
    while (more()) rule();
    for (RuleId r = 0; r < grammar_.rules.size(); ++r) {
      if (grammar_.rules[r].body == nullptr) {
        at_ = first_use_[r];
        error(fmt::format("the rule {} is used but not defined", grammar_.rules[r].name));
      }
    }
    const auto root = ids_.find("root");
    if (root == ids_.end()) fail("grammar: has no rule \"root\", where texts start");
    grammar_.start = root->second;
    for (Rule& rule : grammar_.rules) rule.name = "grammar: rule " + rule.name;
    return std::move(grammar_);
  }

 private:
  [[noreturn]] void error(std::string_view problem) const {
    size_t line = 1, column = 1;
    for (size_t i = 0; i < at_ && i < text_.size(); ++i) {
      column = text_[i] == '\n' ? 1 : column + 1;
      line += text_[i] == '\n';
    }
    fail(fmt::format("grammar: {} at line {}, column {}", problem, line, column));
  }

  bool more() const { return at_ < text_.size(); }
  char peek() const { return more() ? text_[at_] : '\0'; }
  bool take(char c) {
    if (!more() || text_[at_] != c) return false;
    ++at_;
    return true;
  }

  // Spaces and comments; line ends too, where a rule goes on.
  void skip(bool lines) {
    while (more()) {
      const char c = peek();
      if (c == '#') {
        while (more() && peek() != '\n') ++at_;
      } else if (c == ' ' || c == '\t' || (lines && (c == '\n' || c == '\r'))) {
        ++at_;
      } else {
        return;
      }
    }
  }

  static bool is_name(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
  }

  std::string name() {
    const size_t begin = at_;
    while (more() && is_name(peek())) ++at_;
    if (at_ == begin) error("wanted the name of a rule");
    return std::string(text_.substr(begin, at_ - begin));
  }

  RuleId rule_id(const std::string& name, size_t place) {
    const auto [it, inserted] = ids_.try_emplace(name, static_cast<RuleId>(grammar_.rules.size()));
    if (inserted) {
      if (grammar_.rules.size() >= budget_.limits().rules) {
        error(fmt::format("there are more than {} rules", budget_.limits().rules));
      }
      grammar_.rules.push_back({name, nullptr});
      first_use_.push_back(place);
    }
    return it->second;
  }

  void rule() {
    const size_t begin = at_;
    const std::string rule_name = name();
    const RuleId id = rule_id(rule_name, begin);
    skip(false);
    if (!text_.substr(at_).starts_with("::=")) error("wanted ::= after the name of a rule");
    at_ += 3;
    skip(true);
    if (grammar_.rules[id].body != nullptr) error(fmt::format("the rule {} is defined twice", rule_name));
    Expr body = alternatives(0);
    grammar_.rules[id].body = std::move(body);
    if (more() && peek() != '\n' && peek() != '\r') error("wanted the end of the rule");
    skip(true);
  }

  Expr alternatives(int depth) {
    budget_.check_nesting(depth, "grammar");
    std::vector<Expr> parts;
    do {
      skip(true);
      parts.push_back(items(depth));
    } while (take('|'));
    return choice(std::move(parts));
  }

  Expr items(int depth) {
    std::vector<Expr> parts = {text("")};
    for (;;) {
      const char c = peek();
      if (c != '"' && c != '[' && c != '(' && c != '.' && !is_name(c)) break;
      budget_.take_states(1);  // bounds the expression itself
      parts.push_back(quantified(depth));
      skip(depth > 0);
    }
    if (peek() == '<' || peek() == '!') error("tokens in grammars are not supported");
    return sequence(std::move(parts));
  }

  Expr quantified(int depth) {
    Expr part = item(depth);
    for (int count = 0;; ++count) {
      skip(depth > 0);
      if (take('*')) {
        part = repeat(std::move(part), 0, Expression::kUnbounded);
      } else if (take('+')) {
        part = repeat(std::move(part), 1, Expression::kUnbounded);
      } else if (take('?')) {
        part = optional(std::move(part));
      } else if (take('{')) {
        part = counted(std::move(part));
      } else {
        return part;
      }
      budget_.check_nesting(count, "grammar");
    }
  }

  Expr counted(Expr part) {
    skip(false);
    const int min = number();
    int max = min;
    skip(false);
    if (take(',')) {
      skip(false);
      max = peek() == '}' ? Expression::kUnbounded : number();
      skip(false);
    }
    if (!take('}')) error("wanted '}' to end a repetition");
    if (max != Expression::kUnbounded && max < min) error("a repetition has a maximum below its minimum");
    return repeat(std::move(part), min, max);
  }

  int number() {
    if (peek() < '0' || peek() > '9') error("wanted a number in a repetition");
    int value = 0;
    while (peek() >= '0' && peek() <= '9') {
      value = value * 10 + (text_[at_++] - '0');
      if (value > kMaxRepeat) error(fmt::format("a repetition is over {}", kMaxRepeat));
    }
    return value;
  }

  Expr item(int depth) {
    if (peek() == '"') return literal();
    if (peek() == '[') return utf8(character_class());
    if (take('.')) return utf8(CodePoints::all());
    if (take('(')) {
      Expr inside = alternatives(depth + 1);
      skip(true);
      if (!take(')')) error("wanted ')'");
      return inside;
    }
    const size_t begin = at_;
    return call(rule_id(name(), begin));
  }

  Expr literal() {
    ++at_;
    std::string value;
    while (more() && peek() != '"' && peek() != '\n') append_utf8(value, character());
    if (!take('"')) error("wanted '\"' to end a text");
    return text(value);
  }

  CodePoints character_class() {
    ++at_;
    const bool negated = take('^');
    CodePoints set;
    while (more() && peek() != ']' && peek() != '\n') {
      const char32_t low = character();
      char32_t high = low;
      if (peek() == '-' && at_ + 1 < text_.size() && text_[at_ + 1] != ']') {
        ++at_;
        high = character();
      }
      if (high < low) error("a range in a class is out of order");
      set.add(low, high);
      if (set.ranges().size() > kMaxClassRanges) error("a class has too many ranges");
    }
    if (!take(']')) error("wanted ']'");
    return negated ? set.complement() : set;
  }

  char32_t character() {
    if (!more()) error("the text ends within a literal");
    if (!take('\\')) {
      const CodePoint c = decode_utf8(text_, at_);
      at_ += static_cast<size_t>(c.length);
      return c.value;
    }
    const char c = peek();
    ++at_;
    switch (c) {
      case 'n': return '\n';
      case 'r': return '\r';
      case 't': return '\t';
      case 'x': return hex(2);
      case 'u': return hex(4);
      case 'U': return hex(8);
      case '\\':
      case '"':
      case '[':
      case ']':
      case '-':
      case '^':
      case '/': return static_cast<char32_t>(c);
      default: --at_; error("an escape is not supported");
    }
  }

  char32_t hex(int count) {
    char32_t value = 0;
    for (int i = 0; i < count; ++i) {
      const int digit = hex_digit(peek());
      if (digit < 0) error("wanted a hexadecimal digit");
      value = value * 16 + static_cast<char32_t>(digit);
      ++at_;
    }
    if (value > 0x10ffff || (value >= 0xd800 && value <= 0xdfff)) error("an escape is no character");
    return value;
  }

  std::string_view text_;
  Budget& budget_;
  size_t at_ = 0;
  Grammar grammar_;
  std::unordered_map<std::string, RuleId> ids_;
  std::vector<size_t> first_use_;  // by rule
};

}  // namespace

Grammar parse_gbnf(std::string_view text, Budget& budget) { return Parser(text, budget).run(); }

}  // namespace idefics::grammar
