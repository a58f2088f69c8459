// The filters of the language: {{ value | name(arguments) }}.
#pragma once

#include <string_view>

#include "text/jinja/arguments.h"

namespace idefics::jinja {

struct FilterEntry {
  std::string_view name;
  Value (*apply)(Interpreter& in, const Value& value, const Args& args);
};

// The filter of a name, or null.
const FilterEntry* find_filter(std::string_view name);

}  // namespace idefics::jinja
