#include "grammar/schema_merge.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>

#include "grammar/expression.h"
#include "grammar/number_range.h"

namespace idefics::grammar {

namespace {

constexpr std::array kTypes = {
    std::pair{"object", JsonType::kObject}, std::pair{"array", JsonType::kArray},
    std::pair{"string", JsonType::kString}, std::pair{"integer", JsonType::kInteger},
    std::pair{"number", JsonType::kNumber}, std::pair{"boolean", JsonType::kBoolean},
    std::pair{"null", JsonType::kNull},
};

constexpr std::string_view kObjectKeys[] = {"properties", "required", "additionalProperties", "minProperties",
                                            "maxProperties"};
constexpr std::string_view kArrayKeys[] = {"items", "prefixItems", "minItems", "maxItems", "uniqueItems"};
constexpr std::string_view kStringKeys[] = {"minLength", "maxLength", "pattern", "format"};
constexpr std::string_view kNumberKeys[] = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"};

template <size_t N>
bool is_one_of(std::string_view key, const std::string_view (&keys)[N]) {
  return std::find(std::begin(keys), std::end(keys), key) != std::end(keys);
}

template <size_t N>
bool has_any(const json::object& schema, const std::string_view (&keys)[N]) {
  return std::any_of(std::begin(keys), std::end(keys), [&](std::string_view key) { return schema.contains(key); });
}

const char* type_name(JsonType type) {
  return std::find_if(kTypes.begin(), kTypes.end(), [type](const auto& t) { return t.second == type; })->first;
}

JsonType parse_type(const json::value& value, const std::string& where) {
  for (const auto& [name, type] : kTypes) {
    if (value.is_string() && value.get_string() == name) return type;
  }
  fail(fmt::format("{}: type is {}, wanted object, array, string, integer, number, boolean or null", where,
                   describe(value)));
}

bool is_whole(const json::value& value) {
  if (value.is_int64() || value.is_uint64()) return true;
  return value.is_double() && std::isfinite(value.get_double()) && std::trunc(value.get_double()) == value.get_double();
}

// Values equal as JSON Schema has it: 1 and 1.0 are, and the order of keys does not count.
bool same_value(const json::value& a, const json::value& b) {
  if (a.is_number() && b.is_number()) {
    const auto x = to_decimal(a), y = to_decimal(b);
    return x && y && compare(*x, *y) == 0;
  }
  if (a.is_array() && b.is_array()) {
    return a.get_array().size() == b.get_array().size() &&
           std::equal(a.get_array().begin(), a.get_array().end(), b.get_array().begin(), same_value);
  }
  if (a.is_object() && b.is_object()) {
    if (a.get_object().size() != b.get_object().size()) return false;
    return std::all_of(a.get_object().begin(), a.get_object().end(), [&](const auto& entry) {
      const json::value* other = b.get_object().if_contains(entry.key());
      return other != nullptr && same_value(entry.value(), *other);
    });
  }
  return a == b;
}

// The values of enum or const; nothing when there is neither.
const json::array* listed(const json::object& schema, json::array& scratch) {
  if (const json::value* value = schema.if_contains("const")) {
    scratch = {*value};
    return &scratch;
  }
  const json::value* values = schema.if_contains("enum");
  return values != nullptr && values->is_array() ? &values->get_array() : nullptr;
}

json::array common_values(const json::array& a, const json::array& b, const Budget& budget) {
  json::array result;
  for (const json::value& x : a) {
    budget.check_time();  // lists of 10^5 values are compared each with each
    if (std::any_of(b.begin(), b.end(), [&x](const json::value& y) { return same_value(x, y); })) result.push_back(x);
  }
  return result;
}

std::set<JsonType> common_types(const std::set<JsonType>& a, const std::set<JsonType>& b) {
  std::set<JsonType> result;
  for (const JsonType x : a) {
    if (b.contains(x) || (x == JsonType::kInteger && b.contains(JsonType::kNumber))) result.insert(x);
    if (x == JsonType::kNumber && b.contains(JsonType::kInteger)) result.insert(JsonType::kInteger);
  }
  if (result.contains(JsonType::kNumber)) result.erase(JsonType::kInteger);
  return result;
}

json::value types_value(const std::set<JsonType>& types) {
  json::array names;
  for (const JsonType type : types) names.emplace_back(type_name(type));
  return names;
}

bool requires_key(const json::object& schema, std::string_view key) {
  const json::value* list = schema.if_contains("required");
  if (list == nullptr || !list->is_array()) return false;
  return std::any_of(list->get_array().begin(), list->get_array().end(),
                     [key](const json::value& v) { return v.is_string() && v.get_string() == key; });
}

const json::object* properties_of(const json::object& schema) {
  const json::value* value = schema.if_contains("properties");
  return value != nullptr ? value->if_object() : nullptr;
}

// Whether all that `max` of one allows is below what `min` of the other does; with `touch` both may hold at an equal
// number.
bool ends_before(const json::object& low, const char* max, const json::object& high, const char* min, bool touch) {
  const json::value *top = low.if_contains(max), *bottom = high.if_contains(min);
  if (top == nullptr || bottom == nullptr) return false;
  const auto x = to_decimal(*top), y = to_decimal(*bottom);
  if (!x || !y) return false;
  const int compared = compare(*x, *y);
  return compared < 0 || (compared == 0 && !touch);
}

bool is_closed(const json::object& schema) {
  const json::value* more = schema.if_contains("additionalProperties");
  return more != nullptr && more->is_bool() && !more->get_bool();
}

// One part of a JSON pointer in a URI fragment: %HH, then ~1 and ~0.
std::string pointer_part(std::string_view part) {
  std::string plain;
  for (size_t i = 0; i < part.size(); ++i) {
    const int high = part[i] == '%' && i + 2 < part.size() ? hex_digit(part[i + 1]) : -1;
    const int low = high >= 0 ? hex_digit(part[i + 2]) : -1;
    plain.push_back(low >= 0 ? static_cast<char>(high * 16 + low) : part[i]);
    if (low >= 0) i += 2;
  }
  std::string result;
  for (size_t i = 0; i < plain.size(); ++i) {
    const bool escaped = plain[i] == '~' && i + 1 < plain.size() && (plain[i + 1] == '0' || plain[i + 1] == '1');
    result.push_back(escaped ? (plain[i + 1] == '0' ? '~' : '/') : plain[i]);
    i += escaped;
  }
  return result;
}

}  // namespace

bool is_annotation(std::string_view key) {
  constexpr std::string_view kAnnotations[] = {
      "title",           "description", "default",     "examples", "example",      "$comment",
      "deprecated",      "readOnly",    "writeOnly",   "$schema",  "$id",          "contentMediaType",
      "contentEncoding", "$defs",       "definitions", "nullable", "discriminator"};
  return key.starts_with("x-") ||
         std::find(std::begin(kAnnotations), std::end(kAnnotations), key) != std::end(kAnnotations);
}

std::set<JsonType> schema_types(const json::object& schema, const std::string& where) {
  std::set<JsonType> types;
  const json::value* value = schema.if_contains("type");
  if (value == nullptr) {
    for (const auto& [name, type] : kTypes) types.insert(type);
  } else if (const json::array* list = value->if_array()) {
    for (const json::value& item : *list) types.insert(parse_type(item, where));
  } else {
    types.insert(parse_type(*value, where));
  }
  if (types.contains(JsonType::kNumber)) types.erase(JsonType::kInteger);
  return types;
}

std::set<JsonType> written_types(const json::object& schema, const std::string& where) {
  if (schema.contains("type")) return schema_types(schema, where);
  std::set<JsonType> types;
  if (has_any(schema, kObjectKeys)) types.insert(JsonType::kObject);
  if (has_any(schema, kArrayKeys)) types.insert(JsonType::kArray);
  if (has_any(schema, kStringKeys)) types.insert(JsonType::kString);
  if (has_any(schema, kNumberKeys)) types.insert(JsonType::kNumber);
  return types.empty() ? schema_types(schema, where) : types;
}

bool is_typed_keyword(std::string_view key) {
  return is_one_of(key, kObjectKeys) || is_one_of(key, kArrayKeys) || is_one_of(key, kStringKeys) ||
         is_one_of(key, kNumberKeys);
}

bool has_type(const json::value& value, const std::set<JsonType>& types) {
  if (value.is_number()) {
    return types.contains(JsonType::kNumber) || (types.contains(JsonType::kInteger) && is_whole(value));
  }
  const JsonType type = value.is_object()   ? JsonType::kObject
                        : value.is_array()  ? JsonType::kArray
                        : value.is_string() ? JsonType::kString
                        : value.is_bool()   ? JsonType::kBoolean
                                            : JsonType::kNull;
  return types.contains(type);
}

const json::value& SchemaDocument::resolve(std::string_view reference, const std::string& where) const {
  const auto refuse = [&](std::string_view problem) {
    fail(fmt::format("{}: $ref {} {}", where, describe(json::value(reference)), problem));
  };
  if (!reference.starts_with('#') || (reference.size() > 1 && reference[1] != '/')) {
    refuse("is not supported, wanted a place in the same schema: \"#\" or \"#/...\"");
  }
  const json::value* value = &root_;
  std::string_view rest = reference.substr(1);
  while (!rest.empty()) {
    rest.remove_prefix(1);
    const size_t end = std::min(rest.find('/'), rest.size());
    const std::string part = pointer_part(rest.substr(0, end));
    rest.remove_prefix(end);
    const json::value* next = nullptr;
    if (const json::object* object = value->if_object()) {
      next = object->if_contains(part);
    } else if (const json::array* array = value->if_array()) {
      size_t index = 0;
      for (const char c : part)
        index = c >= '0' && c <= '9' && index < 100'000 ? index * 10 + static_cast<size_t>(c - '0') : array->size();
      if (!part.empty() && index < array->size()) next = &(*array)[index];
    }
    if (next == nullptr) refuse("names nothing");
    value = next;
  }
  return *value;
}

// The schema itself behind references and booleans, as an object.
json::object SchemaDocument::follow(const json::value& schema, const std::string& where, int depth) const {
  budget_.check_nesting(depth, where);
  budget_.check_time();
  if (const bool* any = schema.if_bool()) {
    json::object object;
    if (!*any) object["enum"] = json::array();
    return object;
  }
  const json::object* object = schema.if_object();
  if (object == nullptr)
    fail(fmt::format("{}: is {}, wanted a schema: an object or a boolean", where, describe(schema)));
  const json::value* reference = object->if_contains("$ref");
  if (reference == nullptr) return *object;
  if (!reference->is_string()) fail(fmt::format("{}: $ref is {}, wanted a text", where, describe(*reference)));
  json::object rest = *object;
  rest.erase("$ref");
  const json::value& target = resolve(reference->get_string(), where);
  const bool alone = std::all_of(rest.begin(), rest.end(), [](const auto& e) { return is_annotation(e.key()); });
  if (alone) return follow(target, where, depth + 1);
  return merge(target, rest, where, depth + 1).get_object();
}

json::value SchemaDocument::merge(const json::value& a, const json::value& b, const std::string& where,
                                  int depth) const {
  json::object first = follow(a, where, depth + 1), second = follow(b, where, depth + 1);
  if (first.contains("allOf") && second.contains("allOf") && first.at("allOf") != second.at("allOf")) {
    first = without_all_of(first, where, depth + 1);
    second = without_all_of(second, where, depth + 1);
  }
  json::object result;
  // Their additionalProperties speak of different properties, and their items of different places, so these are merged
  // first, as a whole.
  merge_properties(result, first, second, where, depth);
  merge_items(result, first, second, where, depth);
  const auto is_done = [](std::string_view key) {
    return key == "properties" || key == "additionalProperties" || key == "items" || key == "prefixItems";
  };
  for (const auto& [key, value] : first) {
    if (!is_annotation(key) && !is_done(key)) merge_key(result, key, value, where);
  }
  for (const auto& [key, value] : second) {
    if (!is_annotation(key) && !is_done(key)) merge_key(result, key, value, where);
  }
  return result;
}

void SchemaDocument::merge_properties(json::object& result, const json::object& a, const json::object& b,
                                      const std::string& where, int depth) const {
  static const json::value any = true;
  const auto additional = [](const json::object& s) -> const json::value& {
    const json::value* value = s.if_contains("additionalProperties");
    return value != nullptr ? *value : any;
  };
  json::object properties;
  const auto add_from = [&](const json::object& from, const json::object& other) {
    const json::object* own = properties_of(from);
    if (own == nullptr) return;
    const json::object* theirs = properties_of(other);
    for (const auto& [key, value] : *own) {
      if (properties.contains(key)) continue;
      const json::value* twin = theirs != nullptr ? theirs->if_contains(key) : nullptr;
      const json::value& second = twin != nullptr ? *twin : additional(other);
      properties[key] = second.is_bool() && second.get_bool() ? value : merge(value, second, where, depth + 1);
    }
  };
  add_from(a, b);
  add_from(b, a);
  if (!properties.empty() || a.contains("properties") || b.contains("properties")) result["properties"] = properties;
  if (!a.contains("additionalProperties") && !b.contains("additionalProperties")) return;
  const json::value &x = additional(a), &y = additional(b);
  const auto is = [](const json::value& v, bool wanted) { return v.is_bool() && v.get_bool() == wanted; };
  result["additionalProperties"] = is(x, false) || is(y, false) ? json::value(false)
                                   : is(x, true)                ? y
                                   : is(y, true)                ? x
                                                                : merge(x, y, where, depth + 1);
}

void SchemaDocument::merge_items(json::object& result, const json::object& a, const json::object& b,
                                 const std::string& where, int depth) const {
  const auto first_items = [](const json::object& s) {
    const json::value* list = s.if_contains("prefixItems");
    return list != nullptr ? list->if_array() : nullptr;
  };
  for (const json::object* s : {&a, &b}) {
    if (s->contains("prefixItems") && first_items(*s) == nullptr) {
      fail(fmt::format("{}: prefixItems is {}, wanted a list of schemas", where, describe(s->at("prefixItems"))));
    }
  }
  const json::array *first_a = first_items(a), *first_b = first_items(b);
  const json::value *more_a = a.if_contains("items"), *more_b = b.if_contains("items");
  const auto both = [&](const json::value* x, const json::value* y) -> std::optional<json::value> {
    if (x == nullptr && y == nullptr) return std::nullopt;
    return x == nullptr ? *y : y == nullptr || *x == *y ? *x : merge(*x, *y, where, depth + 1);
  };
  const auto at = [](const json::array* list, const json::value* more, size_t i) {
    return list != nullptr && i < list->size() ? &(*list)[i] : more;
  };
  const size_t count = std::max(first_a != nullptr ? first_a->size() : 0, first_b != nullptr ? first_b->size() : 0);
  json::array first;
  for (size_t i = 0; i < count; ++i) first.push_back(*both(at(first_a, more_a, i), at(first_b, more_b, i)));
  if (first_a != nullptr || first_b != nullptr) result["prefixItems"] = first;
  if (auto more = both(more_a, more_b)) result["items"] = *more;
}

void SchemaDocument::merge_key(json::object& into, std::string_view key, const json::value& value,
                               const std::string& where) const {
  json::value* old = into.if_contains(key);
  if (key == "const" || key == "enum") {
    json::array wanted = key == "const" ? json::array{value} : value.is_array() ? value.get_array() : json::array();
    json::value* other = into.if_contains("enum");
    into["enum"] = other == nullptr ? wanted : common_values(other->get_array(), wanted, budget_);
    return;
  }
  if (old == nullptr || *old == value) {
    into[key] = value;
    return;
  }
  if (key == "type") {
    into[key] = types_value(common_types(schema_types(into, where), schema_types({{"type", value}}, where)));
  } else if (key == "required" && old->is_array() && value.is_array()) {
    for (const json::value& name : value.get_array()) {
      budget_.check_time();
      if (!requires_key(into, name.is_string() ? std::string_view(name.get_string()) : "")) {
        into[key].as_array().push_back(name);
      }
    }
  } else if (key.starts_with("min") || key.starts_with("max") || key.starts_with("exclusiveM")) {
    const auto x = to_decimal(*old), y = to_decimal(value);
    if (!x || !y) fail(fmt::format("{}: {} is not a number", where, key));
    const bool greater = key.starts_with("min") || key == "exclusiveMinimum";
    if ((compare(*x, *y) < 0) == greater) into[key] = value;
  } else {
    fail(fmt::format("{}: {} stands in more than one of the schemas that must hold together, which is not supported",
                     where, key));
  }
}

json::object SchemaDocument::without_all_of(const json::object& schema, const std::string& where, int depth) const {
  const json::value& parts = schema.at("allOf");
  if (!parts.is_array() || parts.get_array().empty()) {
    fail(fmt::format("{}: allOf is {}, wanted a list of schemas", where, describe(parts)));
  }
  json::object rest = schema;
  rest.erase("allOf");
  json::value merged = std::move(rest);
  for (size_t i = 0; i < parts.get_array().size(); ++i) {
    merged = merge(merged, parts.get_array()[i], fmt::format("{}/allOf/{}", where, i), depth);
  }
  return merged.get_object();
}

bool SchemaDocument::disjoint(const json::value& first, const json::value& second, const std::string& where,
                              int depth) const {
  if (depth > 8) return false;
  json::object x = follow(first, where, depth), y = follow(second, where, depth);
  if (x.contains("allOf")) x = without_all_of(x, where, depth + 1);
  if (y.contains("allOf")) y = without_all_of(y, where, depth + 1);
  for (const auto* one : {&x, &y}) {
    const json::object& other = one == &x ? y : x;
    for (const char* key : {"anyOf", "oneOf"}) {
      const json::value* branches = one->if_contains(key);
      if (branches == nullptr || !branches->is_array()) continue;
      const bool all = std::all_of(branches->get_array().begin(), branches->get_array().end(),
                                   [&](const json::value& b) { return disjoint(b, other, where, depth + 1); });
      if (all) return true;
    }
  }
  std::set<JsonType> types = common_types(written_types(x, where), schema_types(y, where));
  types.merge(common_types(schema_types(x, where), written_types(y, where)));
  json::array scratch_x, scratch_y;
  const json::array *values_x = listed(x, scratch_x), *values_y = listed(y, scratch_y);
  if (values_x != nullptr && values_y != nullptr && common_values(*values_x, *values_y, budget_).empty()) return true;
  for (const json::array* values : {values_x, values_y}) {
    if (values != nullptr &&
        std::none_of(values->begin(), values->end(), [&](const json::value& v) { return has_type(v, types); })) {
      return true;
    }
  }
  if (types.empty()) return true;
  if (types == std::set{JsonType::kObject}) return disjoint_objects(x, y, where, depth);
  if (types == std::set{JsonType::kInteger} || types == std::set{JsonType::kNumber}) {
    for (const char* max : {"maximum", "exclusiveMaximum"}) {
      for (const char* min : {"minimum", "exclusiveMinimum"}) {
        const bool touch = max[0] != 'e' && min[0] != 'e';
        if (ends_before(x, max, y, min, touch) || ends_before(y, max, x, min, touch)) return true;
      }
    }
  }
  const auto apart = [&](const char* max, const char* min) {
    return ends_before(x, max, y, min, true) || ends_before(y, max, x, min, true);
  };
  if (types == std::set{JsonType::kString}) return apart("maxLength", "minLength");
  if (types == std::set{JsonType::kArray}) return apart("maxItems", "minItems");
  return false;
}

bool SchemaDocument::disjoint_objects(const json::object& a, const json::object& b, const std::string& where,
                                      int depth) const {
  const json::object *own = properties_of(a), *theirs = properties_of(b);
  const auto forbids = [](const json::object& schema, const json::object* properties, std::string_view key) {
    const json::value* value = properties != nullptr ? properties->if_contains(key) : nullptr;
    return value != nullptr ? value->is_bool() && !value->get_bool() : is_closed(schema);
  };
  const auto try_required = [&](const json::object& from, const json::object& other, const json::object* others) {
    const json::value* list = from.if_contains("required");
    if (list == nullptr || !list->is_array()) return false;
    return std::any_of(list->get_array().begin(), list->get_array().end(), [&](const json::value& name) {
      return name.is_string() && forbids(other, others, name.get_string());
    });
  };
  if (try_required(a, b, theirs) || try_required(b, a, own)) return true;
  if (own == nullptr || theirs == nullptr) return false;
  return std::any_of(own->begin(), own->end(), [&](const auto& entry) {
    budget_.check_time();
    const json::value* twin = theirs->if_contains(entry.key());
    return twin != nullptr && requires_key(a, entry.key()) && requires_key(b, entry.key()) &&
           disjoint(entry.value(), *twin, where, depth + 1);
  });
}

}  // namespace idefics::grammar
