#include "server/openai/fields.h"

#include <fmt/format.h>

#include <cmath>

#include "server/openai/api_error.h"

namespace idefics::openai {

void refuse_value(const std::string& path, const json::value& value, std::string_view wanted) {
  throw invalid_value(path,
                      fmt::format("{} is {}, wanted {}", path.empty() ? "the body" : path, describe(value), wanted));
}

std::optional<int64_t> whole_number(const json::value& value, int64_t min, int64_t max) {
  int64_t number = 0;
  if (value.is_int64()) {
    number = value.get_int64();
  } else if (value.is_double()) {
    const double real = value.get_double();
    if (real != std::floor(real) || std::abs(real) > 9e15) return std::nullopt;
    number = static_cast<int64_t>(real);
  } else {
    return std::nullopt;
  }
  if (number < min || number > max) return std::nullopt;
  return number;
}

Fields Fields::of(const json::value& value, const std::string& path) {
  if (!value.is_object()) refuse_value(path, value, "an object");
  return Fields(value.get_object(), path);
}

std::string Fields::path(std::string_view key) const {
  return path_.empty() ? std::string(key) : fmt::format("{}.{}", path_, key);
}

const json::value* Fields::find(std::string_view key) const {
  const json::value* value = object_->if_contains(key);
  return value == nullptr || value->is_null() ? nullptr : value;
}

void Fields::refuse(std::string_view key, const json::value& value, std::string_view wanted) const {
  refuse_value(path(key), value, wanted);
}

std::optional<int64_t> Fields::find_int(std::string_view key, int64_t min, int64_t max) const {
  const json::value* value = find(key);
  if (value == nullptr) return std::nullopt;
  const std::optional<int64_t> number = whole_number(*value, min, max);
  if (!number) refuse(key, *value, fmt::format("a whole number from {} to {}", min, max));
  return number;
}

std::optional<double> Fields::find_number(std::string_view key, double min, double max) const {
  const json::value* value = find(key);
  if (value == nullptr) return std::nullopt;
  const double number = value->is_number() ? value->to_number<double>() : std::nan("");
  if (!(number >= min && number <= max)) refuse(key, *value, fmt::format("a number from {} to {}", min, max));
  return number;
}

std::optional<bool> Fields::find_bool(std::string_view key) const {
  const json::value* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_bool()) refuse(key, *value, "true or false");
  return value->get_bool();
}

std::optional<std::string> Fields::find_string(std::string_view key, size_t max_bytes) const {
  const json::value* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_string()) refuse(key, *value, "a string");
  if (value->get_string().size() > max_bytes)
    refuse(key, *value, fmt::format("a string of at most {} bytes", max_bytes));
  return std::string(value->get_string());
}

std::optional<Fields> Fields::find_object(std::string_view key) const {
  const json::value* value = find(key);
  if (value == nullptr) return std::nullopt;
  return Fields::of(*value, path(key));
}

const json::array* Fields::find_array(std::string_view key, size_t max_size) const {
  const json::value* value = find(key);
  if (value == nullptr) return nullptr;
  if (!value->is_array() || value->get_array().size() > max_size)
    refuse(key, *value, fmt::format("an array of at most {} values", max_size));
  return &value->get_array();
}

std::optional<std::vector<int32_t>> Fields::find_ids(std::string_view key, size_t max_size, int64_t max_id) const {
  const json::array* array = find_array(key, max_size);
  if (array == nullptr) return std::nullopt;
  std::vector<int32_t> ids;
  ids.reserve(array->size());
  for (size_t i = 0; i < array->size(); ++i) {
    const std::optional<int64_t> id = whole_number((*array)[i], 0, max_id);
    if (!id) refuse_value(fmt::format("{}[{}]", path(key), i), (*array)[i], fmt::format("a token id up to {}", max_id));
    ids.push_back(static_cast<int32_t>(*id));
  }
  return ids;
}

}  // namespace idefics::openai
