#include "text/jinja/lexer.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>

#include "base/utf8.h"
#include "idefics/error.h"
#include "text/jinja/numbers.h"
#include "text/jinja/unicode.h"
#include "text/jinja/value.h"

namespace idefics::jinja {
namespace {

constexpr std::array<std::string_view, 26> kOperators = {"**", "//", "==", "!=", ">=", "<=", "+", "-", "/",
                                                         "*",  "%",  "~",  "[",  "]",  "(",  ")", "{", "}",
                                                         ">",  "<",  "=",  ".",  ":",  "|",  ",", ";"};

// Line ends become \n; one at the very end is dropped.
std::string normalize_newlines(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      out += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      out += source[i];
    }
  }
  if (out.ends_with('\n')) out.pop_back();
  return out;
}

bool is_ascii_digit(char c) { return c >= '0' && c <= '9'; }

class Lexer {
 public:
  Lexer(std::string_view source, std::string_view where) : source_(normalize_newlines(source)), where_(where) {}

  std::vector<Token> run() {
    while (at_ < source_.size()) text_or_tag();
    push(TokenKind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  [[noreturn]] void fail_here(std::string_view problem) const { fail_syntax(where_, line_, problem); }

  void push(TokenKind kind, std::string text) {
    Token token;
    token.kind = kind;
    token.line = line_;
    token.text = std::move(text);
    tokens_.push_back(std::move(token));
  }

  bool looking_at(std::string_view text) const { return std::string_view(source_).substr(at_).starts_with(text); }
  char peek(size_t ahead = 0) const { return at_ + ahead < source_.size() ? source_[at_ + ahead] : '\0'; }

  void advance_to(size_t end) {
    line_ += static_cast<int>(std::count(source_.begin() + static_cast<std::ptrdiff_t>(at_),
                                         source_.begin() + static_cast<std::ptrdiff_t>(end), '\n'));
    if (end > at_) line_starting_ = source_[end - 1] == '\n';
    at_ = end;
  }

  size_t skip_blanks(size_t at) const {
    while (at < source_.size()) {
      const CodePoint c = decode_utf8(source_, at);
      if (!is_space(c.value)) break;
      at += static_cast<size_t>(c.length);
    }
    return at;
  }

  // --- text ---

  // The next "{{", "{%" or "{#" at or after `from`.
  size_t find_tag(size_t from) const {
    for (size_t at = source_.find('{', from); at != std::string::npos; at = source_.find('{', at + 1)) {
      const char next = at + 1 < source_.size() ? source_[at + 1] : '\0';
      if (next == '{' || next == '%' || next == '#') return at;
    }
    return std::string::npos;
  }

  // What is left of the text before a tag: "-" takes all blanks, and a block or comment that stands first on its line
  // takes the blanks before it unless "+" keeps them.
  std::string_view strip_before_tag(std::string_view text, char sign, bool is_print) const {
    if (sign == '-') return rstrip(text);
    if (sign == '+' || is_print) return text;
    const size_t newline = text.rfind('\n');
    const size_t line_start = newline == std::string_view::npos ? 0 : newline + 1;
    if (line_start == 0 && !line_starting_) return text;
    return rstrip(text.substr(line_start)).empty() ? text.substr(0, line_start) : text;
  }

  static std::string_view rstrip(std::string_view text) {
    while (!text.empty()) {
      size_t start = text.size() - 1;
      while (start > 0 && (static_cast<unsigned char>(text[start]) & 0xc0) == 0x80) --start;
      if (!is_space(decode_utf8(text, start).value)) break;
      text.remove_suffix(text.size() - start);
    }
    return text;
  }

  void push_text(std::string_view text) {
    if (!text.empty()) push(TokenKind::kText, std::string(text));
  }

  void text_or_tag() {
    const size_t tag = find_tag(at_);
    if (tag == std::string::npos) {
      push_text(std::string_view(source_).substr(at_));
      return advance_to(source_.size());
    }
    const char kind = source_[tag + 1];
    size_t after = tag + 2;
    const char sign =
        after < source_.size() && (source_[after] == '-' || source_[after] == '+') ? source_[after++] : '\0';
    push_text(strip_before_tag(std::string_view(source_).substr(at_, tag - at_), sign, kind == '{'));
    advance_to(tag);
    if (kind == '#') return comment(after);
    if (kind == '{') return inside(after, TokenKind::kOpenPrint, TokenKind::kClosePrint);
    if (const auto body = after_raw(after)) return raw(*body);
    inside(after, TokenKind::kOpenBlock, TokenKind::kCloseBlock);
  }

  // The end of a tag at `at` ("-%}", "%}", "+%}" for the letter '%') with what it takes of the text behind it.
  std::optional<size_t> after_close(size_t at, char letter, bool takes_newline, bool takes_plus = true) const {
    const auto closes = [&](size_t p) {
      return p + 1 < source_.size() && source_[p] == letter && source_[p + 1] == '}';
    };
    if (at < source_.size() && source_[at] == '-' && closes(at + 1)) return skip_blanks(at + 3);
    if (at < source_.size() && source_[at] == '+' && takes_plus && closes(at + 1)) return at + 3;
    if (!closes(at)) return std::nullopt;
    return at + 2 + (takes_newline && at + 2 < source_.size() && source_[at + 2] == '\n' ? 1 : 0);
  }

  void comment(size_t from) {
    for (size_t at = from; at < source_.size(); ++at) {
      if (const auto end = after_close(at, '#', true)) return advance_to(*end);
    }
    fail_here("a comment is not closed with #}");
  }

  // --- raw blocks ---

  static bool is_word(std::string_view source, size_t at, std::string_view word) {
    return source.substr(at).starts_with(word);
  }

  std::optional<size_t> after_raw(size_t after_open) const {
    size_t at = skip_blanks(after_open);
    if (!is_word(source_, at, "raw")) return std::nullopt;
    at = skip_blanks(at + 3);
    return after_close(at, '%', false, false);
  }

  void raw(size_t body) {
    advance_to(body);
    for (size_t tag = source_.find("{%", body); tag != std::string::npos; tag = source_.find("{%", tag + 1)) {
      size_t after = tag + 2;
      const char sign =
          after < source_.size() && (source_[after] == '-' || source_[after] == '+') ? source_[after++] : '\0';
      after = skip_blanks(after);
      if (!is_word(source_, after, "endraw")) continue;
      const auto end = after_close(skip_blanks(after + 6), '%', true);
      if (!end.has_value()) continue;
      push_text(strip_before_tag(std::string_view(source_).substr(body, tag - body), sign, false));
      return advance_to(*end);
    }
    fail_here("a raw block is not closed with {% endraw %}");
  }

  // --- inside of tags ---

  void inside(size_t from, TokenKind open, TokenKind close) {
    push(open, "");
    advance_to(from);
    std::string brackets;  // the closing ones still due; while there are any, "%}" and "}}" are operators
    const bool is_block = close == TokenKind::kCloseBlock;
    while (true) {
      if (at_ >= source_.size()) return;  // the parser misses the end of the tag
      if (brackets.empty()) {
        if (const auto end = after_close(at_, is_block ? '%' : '}', is_block, is_block)) {
          push(close, "");
          return advance_to(*end);
        }
      }
      token(brackets);
    }
  }

  void token(std::string& brackets) {
    if (const size_t end = skip_blanks(at_); end > at_) return advance_to(end);
    if (number() || string() || name()) return;
    for (const std::string_view op : kOperators) {
      if (!looking_at(op)) continue;
      balance(op, brackets);
      push(TokenKind::kOperator, std::string(op));
      return advance_to(at_ + op.size());
    }
    const CodePoint c = decode_utf8(source_, at_);
    fail_here(fmt::format("unexpected character {}",
                          quote(std::string_view(source_).substr(at_, static_cast<size_t>(c.length)))));
  }

  void balance(std::string_view op, std::string& brackets) const {
    if (op == "(") brackets += ')';
    if (op == "[") brackets += ']';
    if (op == "{") brackets += '}';
    if (op != ")" && op != "]" && op != "}") return;
    if (brackets.empty()) fail_here(fmt::format("unexpected '{}'", op));
    if (brackets.back() != op[0]) fail_here(fmt::format("unexpected '{}', expected '{}'", op, brackets.back()));
    brackets.pop_back();
  }

  // Digits with single underscores between them, from `at`; the end, or `at` when there is none.
  template <typename IsDigit>
  size_t skip_digits(size_t at, IsDigit is_digit_char) const {
    while (at < source_.size()) {
      const size_t digit = source_[at] == '_' ? at + 1 : at;
      if (digit >= source_.size() || !is_digit_char(source_[digit])) break;
      at = digit + 1;
    }
    return at;
  }

  // Like skip_digits, but the first character must be a digit.
  size_t decimal_digits(size_t at) const {
    return at < source_.size() && is_ascii_digit(source_[at]) ? skip_digits(at, is_ascii_digit) : at;
  }

  bool number() {
    if (!is_ascii_digit(peek())) return false;
    const size_t whole = decimal_digits(at_);
    size_t end = whole;
    const bool after_dot = at_ > 0 && source_[at_ - 1] == '.';
    if (!after_dot) {
      if (end < source_.size() && source_[end] == '.') {
        const size_t fraction = decimal_digits(end + 1);
        if (fraction > end + 1) end = fraction;
      }
      if (end < source_.size() && (source_[end] | 0x20) == 'e') {
        size_t sign = end + 1;
        if (sign < source_.size() && (source_[sign] == '+' || source_[sign] == '-')) ++sign;
        const size_t exponent = decimal_digits(sign);
        if (exponent > sign) end = exponent;
      }
      if (end > whole) return real_number(end);
    }
    return integer(whole);
  }

  bool real_number(size_t end) {
    push(TokenKind::kFloat, source_.substr(at_, end - at_));
    const auto value = parse_float(tokens_.back().text);
    if (!value.has_value()) fail_here("a number is not well-formed");
    tokens_.back().real = *value;
    advance_to(end);
    return true;
  }

  bool integer(size_t decimal_end) {
    size_t end = decimal_end;
    if (source_[at_] == '0') {
      const char letter = static_cast<char>(peek(1) | 0x20);
      const auto in_base = [letter](char c) {
        if (letter == 'x') return is_ascii_digit(c) || ((c | 0x20) >= 'a' && (c | 0x20) <= 'f');
        return c >= '0' && c <= (letter == 'o' ? '7' : '1');
      };
      const bool prefixed = letter == 'x' || letter == 'o' || letter == 'b';
      const size_t digits = prefixed ? skip_digits(at_ + 2, in_base) : at_ + 2;
      // Without a prefix only zeros follow a zero: "012" is 0 and then 12, which the parser refuses.
      end = digits > at_ + 2 ? digits : skip_digits(at_ + 1, [](char c) { return c == '0'; });
    }
    push(TokenKind::kInteger, source_.substr(at_, end - at_));
    try {
      tokens_.back().integer = parse_int(tokens_.back().text, 0).value_or(0);
    } catch (const Error& e) {
      fail_here(e.what());
    }
    advance_to(end);
    return true;
  }

  bool name() {
    size_t end = at_;
    while (end < source_.size()) {
      const CodePoint c = decode_utf8(source_, end);
      if (c.value != '_' && !is_alnum(c.value)) break;
      end += static_cast<size_t>(c.length);
    }
    if (end == at_) return false;
    push(TokenKind::kName, source_.substr(at_, end - at_));
    advance_to(end);
    return true;
  }

  // --- strings ---

  bool string() {
    const char mark = peek();
    if (mark != '\'' && mark != '"') return false;
    size_t end = at_ + 1;
    while (end < source_.size() && source_[end] != mark) end += source_[end] == '\\' ? 2 : 1;
    if (end >= source_.size()) fail_here("a string is not closed");
    push(TokenKind::kString, unescape(std::string_view(source_).substr(at_ + 1, end - at_ - 1)));
    advance_to(end + 1);
    return true;
  }

  std::string unescape(std::string_view text) const {
    std::string out;
    for (size_t i = 0; i < text.size();) {
      if (text[i] != '\\') {
        out += text[i++];
      } else {
        i = escape(text, i + 1, out);
      }
    }
    return out;
  }

  // The escape whose letter stands at `i`; returns where the text goes on. Unknown escapes keep their backslash.
  size_t escape(std::string_view text, size_t i, std::string& out) const {
    constexpr std::string_view kLetters = "\\'\"abfnrtv", kMeanings = "\\'\"\a\b\f\n\r\t\v";
    const char letter = text[i];
    if (const size_t known = kLetters.find(letter); known != std::string_view::npos) {
      out += kMeanings[known];
      return i + 1;
    }
    if (letter == '\n') return i + 1;
    if (letter == 'x') return hex(text, i + 1, 2, out);
    if (letter == 'u') return hex(text, i + 1, 4, out);
    if (letter == 'U') return hex(text, i + 1, 8, out);
    if (letter == 'N') fail_here("\\N{...} in a string is not supported; write the character itself");
    if (letter >= '0' && letter <= '7') return octal(text, i, out);
    out += '\\';
    if (static_cast<unsigned char>(letter) < 0x80) {
      out += letter;
      return i + 1;
    }
    // Jinja turns the character into an escape of its own first, whose backslash the one before it then uses up.
    const CodePoint c = decode_utf8(text, i);
    const auto code = static_cast<uint32_t>(c.value);
    out += code < 0x100     ? fmt::format("x{:02x}", code)
           : code < 0x10000 ? fmt::format("u{:04x}", code)
                            : fmt::format("U{:08x}", code);
    return i + static_cast<size_t>(c.length);
  }

  size_t hex(std::string_view text, size_t i, size_t count, std::string& out) const {
    char32_t value = 0;
    for (size_t k = 0; k < count; ++k) {
      const char c = i + k < text.size() ? text[i + k] : '\0';
      const bool letter = (c | 0x20) >= 'a' && (c | 0x20) <= 'f';
      if (!is_ascii_digit(c) && !letter) fail_here("a \\x, \\u or \\U escape in a string is cut short");
      value = value * 16 + static_cast<char32_t>(letter ? (c | 0x20) - 'a' + 10 : c - '0');
    }
    return character(value, i + count, out);
  }

  size_t octal(std::string_view text, size_t i, std::string& out) const {
    char32_t value = 0;
    size_t k = i;
    for (; k < i + 3 && k < text.size() && text[k] >= '0' && text[k] <= '7'; ++k)
      value = value * 8 + static_cast<char32_t>(text[k] - '0');
    return character(value, k, out);
  }

  size_t character(char32_t value, size_t next, std::string& out) const {
    if (value > 0x10ffff || (value >= 0xd800 && value < 0xe000))
      fail_here("an escape in a string is no Unicode character");
    append_utf8(out, value);
    return next;
  }

  const std::string source_;
  const std::string_view where_;
  size_t at_ = 0;
  int line_ = 1;
  bool line_starting_ = true;  // the last thing read ended with a newline
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source, std::string_view where) { return Lexer(source, where).run(); }

void fail_syntax(std::string_view where, int line, std::string_view problem) {
  throw Error(ErrorCode::kBadModel, fmt::format("{}: line {}: {}", where, line, problem));
}

std::string describe(const Token& token) {
  switch (token.kind) {
    case TokenKind::kText: return "text";
    case TokenKind::kOpenBlock: return "{%";
    case TokenKind::kCloseBlock: return "%}";
    case TokenKind::kOpenPrint: return "{{";
    case TokenKind::kClosePrint: return "}}";
    case TokenKind::kEnd: return "the end of the template";
    case TokenKind::kString: return "a string";
    default: return quote(token.text);
  }
}

}  // namespace idefics::jinja
