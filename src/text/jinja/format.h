// The two ways Python formats values into a text, and JSON.
#pragma once

#include "text/jinja/arguments.h"

namespace idefics::jinja {

// format % values: `values` is a tuple, a dict for "%(name)s", or the only value.
Value percent_format(Interpreter& in, const Text& format, const Value& values);
// format.format(*args, **kwargs).
Value brace_format(Interpreter& in, const Text& format, const Args& args);

struct JsonStyle {
  bool ensure_ascii = false;
  bool sort_keys = false;
  std::optional<std::string> indent;  // one level of it; nothing: all in one line
  std::string item_separator = ", ", key_separator = ": ";
};
// json.dumps. The whole result is tainted when anything inside is. Errors: values that JSON has not.
Value to_json(Interpreter& in, const Value& value, const JsonStyle& style);

}  // namespace idefics::jinja
