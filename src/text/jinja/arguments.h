// The arguments of a call, and how functions take them.
#pragma once

#include <initializer_list>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "text/jinja/value.h"

namespace idefics::jinja {

struct Args {
  std::vector<Value> positional;
  std::vector<std::pair<Value, Value>> named;  // names are texts, none twice

  const Value* find(std::string_view name) const;
};

// The arguments of a function under the names of its parameters.
class Bound {
 public:
  // `required` parameters come first. Errors: too many, too few, unknown or doubled arguments.
  Bound(std::string_view function, const Args& args, std::initializer_list<std::string_view> parameters,
        size_t required = 0);

  bool has(size_t i) const { return values_[i] != nullptr; }
  bool has_value(size_t i) const { return has(i) && !values_[i]->is_none(); }  // given and not none
  const Value& operator[](size_t i) const { return *values_[i]; }              // REQUIRES: has(i)
  Value get(size_t i, const Value& otherwise) const { return has(i) ? *values_[i] : otherwise; }
  int64_t integer(size_t i, int64_t otherwise) const;  // Errors: not an integer
  bool flag(size_t i, bool otherwise) const;           // its truth
  const Text& text(size_t i) const;                    // Errors: not a text. REQUIRES: has(i)

 private:
  std::string_view function_;
  std::vector<const Value*> values_;
};

// The value as an integer. Errors: it is none; `what` names it.
int64_t need_integer(const Value& value, std::string_view what);
const Text& need_text(const Value& value, std::string_view what);

}  // namespace idefics::jinja
