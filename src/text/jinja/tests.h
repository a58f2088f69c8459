// The tests of the language: {% if value is name(arguments) %}.
#pragma once

#include <string_view>

#include "text/jinja/arguments.h"

namespace idefics::jinja {

struct TestEntry {
  std::string_view name;
  bool (*apply)(Interpreter& in, const Value& value, const Args& args);
};

// The test of a name, or null.
const TestEntry* find_test(std::string_view name);

}  // namespace idefics::jinja
