// How JSON is written in answers: white space, strings, literals, values of any kind.
#pragma once

#include <string_view>

#include "base/json.h"
#include "grammar/expression.h"

namespace idefics::grammar {

// White space is what models write, and bounded, so that an answer cannot consist of it: after ':' nothing or a space;
// after '{' '[' ',' and before '}' ']' nothing, a space, or a line end with at most 16 spaces of indent.
Expr json_break();  // after { [ , and before } ]
Expr json_colon();  // ':' and what may follow it
Expr json_comma();  // ',' and what may follow it

// A character of a string, with every way to escape it but for surrogates that are no pair.
Expr json_character();
// The same, with characters of more than one byte and escapes in a rule of their own, `rare`: few states where many
// characters are counted.
Expr json_character(RuleId rare);
Expr json_rare_character();
Expr quoted(Expr content);
// The one spelling of a string that is written for literals and keys: escapes only where needed.
std::string json_quote(std::string_view value);
// A value that was given, with white space as above. Nothing for numbers that are not finite.
Expr json_literal(const json::value& value);

// The rules of a value of any kind.
struct AnyRules {
  RuleId value, object, array, string, number;
};
Expr any_value(const AnyRules& rules);
Expr any_object(const AnyRules& rules);
Expr any_array(const AnyRules& rules);
Expr any_string();

}  // namespace idefics::grammar
