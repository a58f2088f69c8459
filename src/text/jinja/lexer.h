// Template source -> tokens, with Jinja's rules for blanks: trim_blocks and lstrip_blocks on, one final newline
// dropped.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace idefics::jinja {

enum class TokenKind : uint8_t {
  kText,        // outside of all tags; `text` is what will be printed
  kOpenBlock,   // {%
  kCloseBlock,  // %}
  kOpenPrint,   // {{
  kClosePrint,  // }}
  kName,
  kString,  // `text` holds the string with its escapes resolved
  kInteger,
  kFloat,
  kOperator,  // `text` is one of + - / // * % ** ~ [ ] ( ) { } == != > >= < <= = . : | , ;
  kEnd,
};

struct Token {
  TokenKind kind = TokenKind::kEnd;
  int line = 1;
  std::string text;
  int64_t integer = 0;
  double real = 0;

  bool is(TokenKind k, std::string_view t) const { return kind == k && text == t; }
  bool is_name(std::string_view name) const { return is(TokenKind::kName, name); }
  bool is_operator(std::string_view op) const { return is(TokenKind::kOperator, op); }
};

// `where` names the template in errors. Errors: kBadModel, with the line.
std::vector<Token> tokenize(std::string_view source, std::string_view where);

// Throws Error{kBadModel, "<where>: line <line>: <problem>"}.
[[noreturn]] void fail_syntax(std::string_view where, int line, std::string_view problem);
// How a token is named in an error.
std::string describe(const Token& token);

}  // namespace idefics::jinja
