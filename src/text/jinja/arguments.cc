#include "text/jinja/arguments.h"

#include <fmt/format.h>

#include <algorithm>

namespace idefics::jinja {

const Value* Args::find(std::string_view name) const {
  for (const auto& [key, value] : named) {
    if (key.text().view == name) return &value;
  }
  return nullptr;
}

Bound::Bound(std::string_view function, const Args& args, std::initializer_list<std::string_view> parameters,
             size_t required)
    : function_(function), values_(parameters.size(), nullptr) {
  if (args.positional.size() > parameters.size()) {
    fail(fmt::format("{} takes at most {} arguments, got {}", function, parameters.size(), args.positional.size()));
  }
  for (size_t i = 0; i < args.positional.size(); ++i) values_[i] = &args.positional[i];
  for (const auto& [name, value] : args.named) {
    const auto at = std::find(parameters.begin(), parameters.end(), name.text().view);
    if (at == parameters.end()) fail(fmt::format("{} has no parameter {}", function, quote(name.text().view)));
    const Value*& place = values_[static_cast<size_t>(at - parameters.begin())];
    if (place != nullptr) fail(fmt::format("{} got its argument {} twice", function, *at));
    place = &value;
  }
  for (size_t i = 0; i < required; ++i) {
    if (!has(i)) fail(fmt::format("{} needs its argument {}", function, *(parameters.begin() + i)));
  }
}

int64_t Bound::integer(size_t i, int64_t otherwise) const {
  return has(i) ? need_integer(*values_[i], function_) : otherwise;
}

bool Bound::flag(size_t i, bool otherwise) const { return has(i) ? truth(*values_[i]) : otherwise; }

const Text& Bound::text(size_t i) const { return need_text(*values_[i], function_); }

int64_t need_integer(const Value& value, std::string_view what) {
  if (value.is_undefined()) fail(value.why_undefined());
  if (!value.is_integral())
    fail(fmt::format("{} needs a whole number, not a value of type {}", what, type_name(value)));
  return value.integer();
}

const Text& need_text(const Value& value, std::string_view what) {
  if (value.is_undefined()) fail(value.why_undefined());
  if (!value.is_text()) fail(fmt::format("{} needs a text, not a value of type {}", what, type_name(value)));
  return value.text();
}

}  // namespace idefics::jinja
