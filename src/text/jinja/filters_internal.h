// Shared by the files that define filters.
#pragma once

#include <span>
#include <vector>

#include "text/jinja/filters.h"
#include "text/jinja/interpreter.h"

namespace idefics::jinja {

std::span<const FilterEntry> text_filters();  // filters_text.cc: texts, numbers, formats
std::span<const FilterEntry> item_filters();  // filters_items.cc: lists and dicts

// Gets an attribute path ("a.b.0") of items, for filters with an `attribute`.
class AttributePath {
 public:
  // `path` is none (the item itself), a text, or an index.
  explicit AttributePath(Interpreter& in, const Value& path);
  // `fallback` stands for what is undefined on the way; `ignore_case` makes texts lower case.
  Value get(Interpreter& in, const Value& item, const Value* fallback = nullptr, bool ignore_case = false) const;

 private:
  std::vector<Value> parts_;
};

}  // namespace idefics::jinja
