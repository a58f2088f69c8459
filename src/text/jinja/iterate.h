// Walking over values.
#pragma once

#include <memory>
#include <vector>

#include "text/jinja/value.h"

namespace idefics::jinja {

// Walks over the items of a value: the characters of a text, the keys of a dict; a generator walks itself. Errors: not
// iterable.
std::shared_ptr<Iterator> iterate(Interpreter& in, const Value& value);
bool is_iterable(const Value& value);
// list(value).
std::vector<Value> to_items(Interpreter& in, const Value& value);
// Items in reverse order, for values that have an order of their own; false when the value has none.
bool reversed_items(Interpreter& in, const Value& value, std::vector<Value>& out);
// The name and value of a dict's entry as a tuple.
Value make_pair_value(Budget& budget, const Value& first, const Value& second);

// A generator that hands out items made before.
Value make_generator(Budget& budget, std::vector<Value> items);

}  // namespace idefics::jinja
