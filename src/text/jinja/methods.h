// Methods of texts, dicts, lists and floats, and what else `value.name` can mean.
#pragma once

#include <string_view>

#include "text/jinja/arguments.h"

namespace idefics::jinja {

struct MethodEntry {
  std::string_view name;
  Value (*call)(Interpreter& in, const Value& self, const Args& args);
};

// A method bound to its value.
struct Method final : Object {
  using Object::Object;
  Value self;
  const MethodEntry* entry = nullptr;
};

// The method of a type, or null. In string_methods.cc and methods.cc.
const MethodEntry* find_text_method(std::string_view name);
const MethodEntry* find_method(Kind kind, std::string_view name);

// `value.name` and `value[key]` with the sandbox's rules. What is not there is undefined; so is what the sandbox
// forbids (methods that change a value, names with an underscore). Errors: `value` is undefined.
Value get_attribute(Interpreter& in, const Value& value, std::string_view name);
// The same without falling back to an item of that name: what Python's getattr finds, or nothing.
std::optional<Value> own_attribute(Interpreter& in, const Value& value, std::string_view name);
Value get_item(Interpreter& in, const Value& value, const Value& key);
// `value[from:to:by]`; bounds may be none. Errors: not a sequence, a step of 0.
Value get_slice(Interpreter& in, const Value& value, const Value& from, const Value& to, const Value& by);

}  // namespace idefics::jinja
