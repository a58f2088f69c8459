// The members of a JSON object of a request, with errors that name them as clients do: "messages[1].content".
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace idefics::openai {

// Borrows the object. A member that is null counts as absent. Every find_ throws ApiError 400 invalid_value with
// `param` when the member is there and of another type or out of its range.
class Fields {
 public:
  Fields(const json::object& object, std::string path) : object_(&object), path_(std::move(path)) {}
  // A value that must be an object.
  static Fields of(const json::value& value, const std::string& path);

  const json::object& raw() const { return *object_; }
  // The name of a member in errors: "stream_options.include_usage".
  std::string path(std::string_view key) const;

  const json::value* find(std::string_view key) const;
  std::optional<int64_t> find_int(std::string_view key, int64_t min, int64_t max) const;
  std::optional<double> find_number(std::string_view key, double min, double max) const;
  std::optional<bool> find_bool(std::string_view key) const;
  std::optional<std::string> find_string(std::string_view key, size_t max_bytes) const;
  std::optional<Fields> find_object(std::string_view key) const;
  const json::array* find_array(std::string_view key, size_t max_size) const;
  // A list of whole numbers.
  std::optional<std::vector<int32_t>> find_ids(std::string_view key, size_t max_size, int64_t max_id) const;

  // "<path> is <value>, wanted <wanted>".
  [[noreturn]] void refuse(std::string_view key, const json::value& value, std::string_view wanted) const;

 private:
  const json::object* object_;
  std::string path_;
};

// ApiError 400 invalid_value: "<path> is <value>, wanted <wanted>".
[[noreturn]] void refuse_value(const std::string& path, const json::value& value, std::string_view wanted);
// A whole number from `min` to `max`, also when it is written as 3.0.
std::optional<int64_t> whole_number(const json::value& value, int64_t min, int64_t max);

}  // namespace idefics::openai
