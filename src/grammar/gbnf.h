// GBNF, the grammar notation of llama.cpp.
#pragma once

#include <string_view>

#include "grammar/program.h"

namespace idefics::grammar {

//   root  ::= "yes" | "no" | item ("," item)*
//   item  ::= [a-z]{1,8}     # a comment
// Literals with \n \r \t \\ \" \[ \] \xHH \uHHHH \UHHHHHHHH, classes, '.', groups, * + ? {n} {n,} {n,m}. A rule ends at
// the end of its line, but for lines within parentheses and after '|' or '::='. The start is "root". Left recursion is
// refused, and tokens (<[id]>), which are not text. Errors: kSchemaInvalid with line and column.
Grammar parse_gbnf(std::string_view text, Budget& budget);

}  // namespace idefics::grammar
