#include "base/json.h"

#include <fmt/format.h>

#include <cmath>

namespace idefics {

namespace {

std::string place_of(std::string_view text, size_t offset) {
  size_t line = 1, column = 1;
  for (size_t i = 0; i < offset && i < text.size(); ++i) {
    column = text[i] == '\n' ? 1 : column + 1;
    line += text[i] == '\n';
  }
  return fmt::format("line {}, column {}", line, column);
}

}  // namespace

json::value parse_json(std::string_view text, std::string_view where, ErrorCode code) {
  json::parse_options options;
  options.max_depth = 64;
  json::stream_parser parser({}, options);
  boost::system::error_code error;
  const size_t used = parser.write_some(text.data(), text.size(), error);
  if (!error && !parser.done()) parser.finish(error);
  if (!error && text.find_first_not_of(" \t\r\n", used) != std::string_view::npos) error = json::error::extra_data;
  if (error) {
    throw Error(code, fmt::format("{}: not valid JSON ({} at {})", where, error.message(), place_of(text, used)));
  }
  return parser.release();
}

std::string describe(const json::value& value) {
  if (value.is_object()) return fmt::format("an object of {} keys", value.get_object().size());
  if (value.is_array()) return fmt::format("an array of {} values", value.get_array().size());
  std::string text = json::serialize(value);
  if (text.size() > 40) text = text.substr(0, 37) + "...";
  return text;
}

JsonObject JsonObject::of(const json::value& value, std::string name, ErrorCode code) {
  if (!value.is_object()) throw Error(code, fmt::format("{}: wanted a JSON object, found {}", name, describe(value)));
  return JsonObject(value.get_object(), std::move(name), code);
}

const json::value* JsonObject::find(std::string_view key) const {
  const json::value* value = object_->if_contains(key);
  return value == nullptr || value->is_null() ? nullptr : value;
}

std::optional<int64_t> JsonObject::find_int(std::string_view key, int64_t min, int64_t max) const {
  const json::value* value = find(key);
  if (value == nullptr) return std::nullopt;
  const int64_t* number = value->if_int64();
  if (number == nullptr || *number < min || *number > max) {
    fail(key, fmt::format("is {}, wanted a whole number from {} to {}", describe(*value), min, max));
  }
  return *number;
}

std::optional<double> JsonObject::find_number(std::string_view key) const {
  const json::value* value = find(key);
  if (value == nullptr) return std::nullopt;
  boost::system::error_code error;
  const double number = value->is_number() ? value->to_number<double>(error) : std::nan("");
  if (error || !std::isfinite(number)) fail(key, fmt::format("is {}, wanted a number", describe(*value)));
  return number;
}

std::optional<bool> JsonObject::find_bool(std::string_view key) const {
  const json::value* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_bool()) fail(key, fmt::format("is {}, wanted true or false", describe(*value)));
  return value->get_bool();
}

std::optional<std::string> JsonObject::find_string(std::string_view key) const {
  const json::value* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_string()) fail(key, fmt::format("is {}, wanted a string", describe(*value)));
  return std::string(value->get_string());
}

std::optional<JsonObject> JsonObject::find_object(std::string_view key) const {
  const json::value* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_object()) fail(key, fmt::format("is {}, wanted an object", describe(*value)));
  return JsonObject(value->get_object(), fmt::format("{}: {}", name_, key), code_);
}

const json::array* JsonObject::find_array(std::string_view key) const {
  const json::value* value = find(key);
  if (value == nullptr) return nullptr;
  if (!value->is_array()) fail(key, fmt::format("is {}, wanted an array", describe(*value)));
  return &value->get_array();
}

void JsonObject::fail(std::string_view key, std::string_view problem) const {
  throw Error(code_, fmt::format("{}: {} {}", name_, key, problem));
}

}  // namespace idefics
