// Regular expressions: the part of ECMAScript's syntax that describes regular languages.
#pragma once

#include <string>
#include <string_view>

#include "grammar/expression.h"
#include "grammar/limits.h"

namespace idefics::grammar {

// The texts that the whole expression matches, as UTF-8. `^` and `$` may stand at the ends of the expression, or of an
// alternative of it, where they change nothing.
//   Supported: literals, . (no line end), [...] and [^...], \d \w \s \D \W \S (ASCII but for \s), \n \r \t \f \v \0
//   \xHH \uHHHH \u{H...}, groups ( ) (?: ) (?<name> ), alternatives, * + ? {n} {n,} {n,m}, lazy or not. Refused:
//   backreferences, lookaround, \b, \p, flags, possessive quantifiers.
// Errors: kSchemaInvalid with the offset in bytes; `where` names the expression.
Expr parse_regex(std::string_view pattern, const std::string& where, Budget& budget);

// The same for "pattern" of a JSON schema: the inside of the JSON strings whose value holds a match anywhere, unless ^
// and $ tie it. What JSON needs to escape has its shortest escape, everything else stands for itself.
Expr parse_json_pattern(std::string_view pattern, const std::string& where, Budget& budget);

// A character of the set in a JSON string, spelled so.
Expr json_characters(const CodePoints& set);
// The shortest escape of '"', '\\' or a character below U+0020.
std::string json_escape(char32_t c);

}  // namespace idefics::grammar
