// Schemas as JSON values: references, allOf, and whether two of them exclude each other.
#pragma once

#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "grammar/limits.h"

namespace idefics::grammar {

// The kinds of values, in the order in which they are offered.
enum class JsonType { kObject, kArray, kString, kInteger, kNumber, kBoolean, kNull };

// What "type" says; all kinds when it is missing. kNumber includes integers.
std::set<JsonType> schema_types(const json::object& schema, const std::string& where);
// The kinds that are written: those of "type"; without it, those that the other keywords speak of; without any, all.
std::set<JsonType> written_types(const json::object& schema, const std::string& where);
bool has_type(const json::value& value, const std::set<JsonType>& types);

// A schema document. Threads: const.
class SchemaDocument {
 public:
  SchemaDocument(json::value root, Budget& budget) : root_(std::move(root)), budget_(budget) {}
  const json::value& root() const { return root_; }

  // The schema that "#" or "#/..." names.
  const json::value& resolve(std::string_view reference, const std::string& where) const;

  // A schema that a value satisfies when it satisfies both. Errors: kSchemaInvalid when that cannot be written as one
  // schema.
  json::value merge(const json::value& a, const json::value& b, const std::string& where, int depth = 0) const;

  // A schema with "allOf" as one without. Errors: as merge().
  json::object without_all_of(const json::object& schema, const std::string& where, int depth = 0) const;

  // True only when it is certain that no value that is written for one of them satisfies the other.
  bool disjoint(const json::value& a, const json::value& b, const std::string& where, int depth = 0) const;

 private:
  void merge_items(json::object& result, const json::object& a, const json::object& b, const std::string& where,
                   int depth) const;
  void merge_key(json::object& into, std::string_view key, const json::value& value, const std::string& where) const;
  void merge_properties(json::object& result, const json::object& a, const json::object& b, const std::string& where,
                        int depth) const;
  json::object follow(const json::value& schema, const std::string& where, int depth) const;
  bool disjoint_objects(const json::object& a, const json::object& b, const std::string& where, int depth) const;

  json::value root_;
  Budget& budget_;
};

// Supported keywords that speak of one kind of values.
bool is_typed_keyword(std::string_view key);
// Keywords that say nothing about which values are valid.
bool is_annotation(std::string_view key);

}  // namespace idefics::grammar
