// Arithmetic, comparison and membership with Python's rules.
#pragma once

#include "text/jinja/ast.h"
#include "text/jinja/value.h"

namespace idefics::jinja {

// + - * / // % **. Errors: operands of other types, division by zero, whole numbers beyond 64 bits.
Value arithmetic(Interpreter& in, Operator op, const Value& a, const Value& b);
Value negative(const Value& value);
Value positive(const Value& value);
// == != < <= > >= in, not in.
bool compare(Interpreter& in, Operator op, const Value& a, const Value& b);
bool contains(Interpreter& in, const Value& container, const Value& value);

}  // namespace idefics::jinja
