// JSON, by Boost.JSON, with the limits that untrusted files need and errors that name the place.
#pragma once

#include <boost/json.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "idefics/error.h"

namespace idefics {

namespace json = boost::json;

// Parses a whole text as one JSON value. `where` names it in errors (a file's path). Depth is limited to 64.
// Duplicate keys: the last one counts, as in Python. Errors: `code`, with line and column.
json::value parse_json(std::string_view text, std::string_view where, ErrorCode code = ErrorCode::kBadModel);

// A JSON object together with its name ("config.json: text_config"), so that every getter can say which key is wrong.
// Borrows the object, which must outlive it.
class JsonObject {
 public:
  JsonObject(const json::object& object, std::string name, ErrorCode code = ErrorCode::kBadModel)
      : object_(&object), name_(std::move(name)), code_(code) {}
  // Fails when `value` is not an object.
  static JsonObject of(const json::value& value, std::string name, ErrorCode code = ErrorCode::kBadModel);

  const json::object& raw() const { return *object_; }
  const std::string& name() const { return name_; }

  // The value of `key`; nothing when it is absent or null.
  const json::value* find(std::string_view key) const;
  // The value of `key` if it is there, of the named type and within its range; nothing when absent or null; an error
  // otherwise.
  std::optional<int64_t> find_int(std::string_view key, int64_t min, int64_t max) const;
  std::optional<double> find_number(std::string_view key) const;  // finite
  std::optional<bool> find_bool(std::string_view key) const;
  std::optional<std::string> find_string(std::string_view key) const;
  std::optional<JsonObject> find_object(std::string_view key) const;
  const json::array* find_array(std::string_view key) const;

  // Throws "<name>: <key> <problem>" (e.g. "config.json: text_config: num_hidden_layers is -3, wanted a whole number
  // from 1 to 1000").
  [[noreturn]] void fail(std::string_view key, std::string_view problem) const;

 private:
  const json::object* object_;
  std::string name_;
  ErrorCode code_;
};

// How a value is named in an error: its JSON text, cut after 40 bytes.
std::string describe(const json::value& value);

}  // namespace idefics
