#include "grammar/json_schema.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <deque>
#include <optional>
#include <unordered_map>

#include "base/check.h"
#include "grammar/json_text.h"
#include "grammar/number_range.h"
#include "grammar/regex.h"
#include "grammar/schema_merge.h"

namespace idefics::grammar {

namespace {

constexpr int64_t kMaxCount = 100'000;  // of minLength, maxItems, ...
// Up to this many characters are counted with all their escapes in line, which makes masks cheapest.
constexpr int64_t kMaxInline = 256;

constexpr std::string_view kOtherKeys[] = {"type", "enum", "const", "anyOf", "oneOf", "allOf", "$ref"};

bool is_boolean(const json::value* value, bool wanted) {
  return value != nullptr && value->is_bool() && value->get_bool() == wanted;
}

// The expressions of RFC 3339 and the others, as far as they are regular. Nothing: not supported.
std::optional<std::string> format_pattern(std::string_view format) {
  const std::string date =
      "([0-9]{4}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8])"
      ")"
      "|([0-9]{2}(0[48]|[2468][048]|[13579][26])|([02468][048]|[13579][26])00)-02-29)";
  const std::string time =
      "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])";
  const std::string byte = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])";
  const std::string label = "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?";
  const std::string name = label + "(\\." + label + "){0,2}";
  const std::string word = "[A-Za-z0-9_+-]+";
  if (format == "date") return date;
  if (format == "time") return time;
  if (format == "date-time") return date + "T" + time;
  if (format == "duration") {
    return "P([0-9]{1,6}W|[0-9]{1,6}D(T([0-9]{1,6}H([0-9]{1,6}M([0-9]{1,6}S)?)?|[0-9]{1,6}M([0-9]{1,6}S)?|[0-9]{1,6}S))"
           "?"
           "|T([0-9]{1,6}H([0-9]{1,6}M([0-9]{1,6}S)?)?|[0-9]{1,6}M([0-9]{1,6}S)?|[0-9]{1,6}S))";
  }
  if (format == "uuid") return "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}";
  if (format == "email") return "[A-Za-z0-9_+-]{1,30}(\\.[A-Za-z0-9_+-]{1,30})?@" + label + "(\\." + label + "){1,2}";
  if (format == "hostname") return name;
  if (format == "ipv4") return byte + "(\\." + byte + "){3}";
  if (format == "ipv6") return "[0-9a-f]{1,4}(:[0-9a-f]{1,4}){7}";
  return std::nullopt;
}

class Compiler {
 public:
  Compiler(json::value root, Budget& budget) : document_(std::move(root), budget), budget_(budget) {}

  Grammar run() {
    grammar_.rules.push_back({"json_schema", nullptr});
    const RuleId root = rule_of(document_.root(), "json_schema: #");
    finish(root);
    return std::move(grammar_);
  }

  Grammar any_object_only() {
    grammar_.rules.push_back({"json_object", nullptr});
    const RuleId root = any().object;
    finish(root);
    return std::move(grammar_);
  }

 private:
  struct Pending {
    RuleId rule;
    json::value schema;
    std::string where;
  };

  // Models begin their answer with a space after "Assistant:".
  void finish(RuleId root) {
    grammar_.rules[0].body = sequence({optional(text(" ")), call(root)});
    // Schemas that refer to others put them here, so that no chain of references is a recursion of ours.
    while (!pending_.empty()) {
      const Pending next = std::move(pending_.front());
      pending_.pop_front();
      budget_.check_time();
      Expr body = body_of(next.schema, next.where, 0);
      grammar_.rules[next.rule].body = std::move(body);
    }
  }

  RuleId add_rule(const std::string& name, Expr body) {
    if (grammar_.rules.size() >= budget_.limits().rules) {
      fail(fmt::format("{}: the schema needs more than {} rules", name, budget_.limits().rules));
    }
    grammar_.rules.push_back({name, std::move(body)});
    return static_cast<RuleId>(grammar_.rules.size() - 1);
  }

  // One rule for all places that say the same.
  RuleId rule_of(const json::value& schema, const std::string& where) {
    const auto [it, inserted] = rules_.try_emplace(json::serialize(schema), 0);
    if (inserted) {
      it->second = add_rule(where, nullptr);
      pending_.push_back({it->second, schema, where});
    }
    return it->second;
  }

  const AnyRules& any() {
    if (any_) return *any_;
    AnyRules rules{};
    for (RuleId* rule : {&rules.value, &rules.object, &rules.array, &rules.string, &rules.number}) {
      *rule = add_rule("any JSON value", nullptr);
    }
    grammar_.rules[rules.value].body = any_value(rules);
    grammar_.rules[rules.object].body = any_object(rules);
    grammar_.rules[rules.array].body = any_array(rules);
    grammar_.rules[rules.string].body = any_string();
    grammar_.rules[rules.number].body = any_number();
    any_ = rules;
    return *any_;
  }

  // ---- Schemas
  // -------------------------------------------------------------------------------------------------------

  Expr body_of(const json::value& schema, const std::string& where, int depth) {
    budget_.check_nesting(depth, where);
    if (const bool* all = schema.if_bool()) return *all ? call(any().value) : nothing();
    if (!schema.is_object()) {
      fail(fmt::format("{}: is {}, wanted a schema: an object or a boolean", where, describe(schema)));
    }
    const json::object& object = schema.get_object();
    check_keywords(object, where);
    if (object.contains("$ref")) return reference(object, where, depth);
    if (object.contains("allOf")) return all_of(object, where, depth);
    if (object.contains("anyOf")) return branches(object, "anyOf", where);
    if (object.contains("oneOf")) return branches(object, "oneOf", where);
    if (object.contains("enum") || object.contains("const")) return literals(object, where);
    return by_type(object, where);
  }

  void check_keywords(const json::object& schema, const std::string& where) {
    for (const auto& [key, value] : schema) {
      const bool known = is_annotation(key) || is_typed_keyword(key) ||
                         std::find(std::begin(kOtherKeys), std::end(kOtherKeys), key) != std::end(kOtherKeys);
      if (!known) fail(fmt::format("{}: the keyword {} is not supported", where, describe(json::value(key))));
    }
    if (schema.contains("$id") && &schema != document_.root().if_object() && schema.contains("$ref")) {
      fail(fmt::format("{}: $ref beside $id is not supported", where));
    }
  }

  // Whether there is anything in the schema besides `key` and annotations.
  static bool stands_alone(const json::object& schema, std::string_view key) {
    return std::all_of(schema.begin(), schema.end(),
                       [key](const auto& entry) { return entry.key() == key || is_annotation(entry.key()); });
  }

  static json::object without(const json::object& schema, std::string_view key) {
    json::object rest = schema;
    rest.erase(key);
    return rest;
  }

  Expr reference(const json::object& schema, const std::string& where, int depth) {
    const json::value& target = schema.at("$ref");
    if (!target.is_string()) fail(fmt::format("{}: $ref is {}, wanted a text", where, describe(target)));
    if (stands_alone(schema, "$ref")) {
      const std::string name = "json_schema: " + std::string(target.get_string());
      return call(rule_of(document_.resolve(target.get_string(), where), name));
    }
    return body_of(document_.merge(json::object{{"$ref", target}}, without(schema, "$ref"), where), where, depth + 1);
  }

  const json::array& list_of_schemas(const json::object& schema, std::string_view key, const std::string& where) {
    const json::value& value = schema.at(key);
    if (!value.is_array() || value.get_array().empty()) {
      fail(fmt::format("{}: {} is {}, wanted a list of schemas", where, key, describe(value)));
    }
    return value.get_array();
  }

  Expr all_of(const json::object& schema, const std::string& where, int depth) {
    const json::array& parts = list_of_schemas(schema, "allOf", where);
    for (size_t i = 0; i < parts.size(); ++i) check_part(parts[i], fmt::format("{}/allOf/{}", where, i));
    return body_of(document_.without_all_of(schema, where), where, depth + 1);
  }

  void check_part(const json::value& part, const std::string& where) {
    if (part.is_object()) check_keywords(part.get_object(), where);
  }

  Expr branches(const json::object& schema, const std::string& key, const std::string& where) {
    const json::array& parts = list_of_schemas(schema, key, where);
    const json::object siblings = without(schema, key);
    const bool alone = stands_alone(schema, key);
    json::array merged;
    std::vector<Expr> result;
    for (size_t i = 0; i < parts.size(); ++i) {
      const std::string place = fmt::format("{}/{}/{}", where, key, i);
      check_part(parts[i], place);
      merged.push_back(alone ? parts[i] : document_.merge(siblings, parts[i], place));
      result.push_back(call(rule_of(merged.back(), place)));
    }
    if (key == "oneOf") check_disjoint(merged, where);
    return choice(std::move(result));
  }

  void check_disjoint(const json::array& parts, const std::string& where) {
    for (size_t i = 0; i < parts.size(); ++i) {
      for (size_t j = i + 1; j < parts.size(); ++j) {
        budget_.check_time();
        if (document_.disjoint(parts[i], parts[j], where)) continue;
        fail(fmt::format(
            "{}/oneOf: a value may be valid under {} and {} at once; use anyOf, or a required property that "
            "tells them apart by its const",
            where, i, j));
      }
    }
  }

  Expr literals(const json::object& schema, const std::string& where) {
    for (const auto& [key, value] : schema) {
      if (key == "enum" || key == "const" || key == "type" || is_annotation(key)) continue;
      fail(fmt::format("{}: {} beside enum or const is not supported; leave out the values that it forbids", where,
                       std::string_view(key)));
    }
    const auto types = schema_types(schema, where);
    json::array values;
    if (const json::value* list = schema.if_contains("enum")) {
      if (!list->is_array()) fail(fmt::format("{}: enum is {}, wanted a list", where, describe(*list)));
      values = list->get_array();
    } else {
      values.push_back(schema.at("const"));
    }
    if (schema.contains("enum") && schema.contains("const")) {
      return body_of(document_.merge(without(schema, "const"), without(schema, "enum"), where), where, 1);
    }
    std::vector<Expr> parts;
    for (const json::value& value : values) {
      if (has_type(value, types)) parts.push_back(json_literal(value));
    }
    return choice(std::move(parts));
  }

  // Without "type", the keywords say which kinds are meant; without any, every kind is.
  Expr by_type(const json::object& schema, const std::string& where) {
    const auto types = written_types(schema, where);
    const bool says_more =
        std::any_of(schema.begin(), schema.end(), [](const auto& entry) { return is_typed_keyword(entry.key()); });
    if (!schema.contains("type") && !says_more) return call(any().value);
    std::vector<Expr> parts;
    for (const JsonType type : types) parts.push_back(of_type(type, schema, where));
    return choice(std::move(parts));
  }

  Expr of_type(JsonType type, const json::object& schema, const std::string& where) {
    switch (type) {
      case JsonType::kObject: return object_of(schema, where);
      case JsonType::kArray: return array_of(schema, where);
      case JsonType::kString: return string_of(schema, where);
      case JsonType::kInteger: return number_of(schema, where, true);
      case JsonType::kNumber: return number_of(schema, where, false);
      case JsonType::kBoolean: return choice({text("true"), text("false")});
      case JsonType::kNull: return text("null");
    }
    IDEFICS_CHECK(false);
    return nothing();
  }

  // A whole number from 0 up; nothing when `key` is missing.
  std::optional<int64_t> count_of(const json::object& schema, std::string_view key, const std::string& where) {
    const json::value* value = schema.if_contains(key);
    if (value == nullptr) return std::nullopt;
    const auto number = to_decimal(*value);
    if (!number || number->negative || !number->fraction.empty() || number->whole.size() > 18) {
      fail(fmt::format("{}: {} is {}, wanted a whole number from 0", where, key, describe(*value)));
    }
    return std::stoll(number->whole);
  }

  // A minimum and a maximum. A maximum beyond what is counted is lowered to that.
  std::pair<int, int> counts_of(const json::object& schema, std::string_view min_key, std::string_view max_key,
                                const std::string& where) {
    const int64_t min = count_of(schema, min_key, where).value_or(0);
    const auto max = count_of(schema, max_key, where);
    if (min > kMaxCount) fail(fmt::format("{}: {} is {}, at most {} is supported", where, min_key, min, kMaxCount));
    return {static_cast<int>(min), max ? static_cast<int>(std::min(*max, kMaxCount)) : Expression::kUnbounded};
  }

  // ---- Objects
  // -------------------------------------------------------------------------------------------------------

  struct Property {
    std::string key;
    Expr pair;  // key, colon, value
    bool required;
  };

  Expr object_of(const json::object& schema, const std::string& where) {
    const json::value* more = schema.if_contains("additionalProperties");
    std::vector<std::string> required = required_keys(schema, where);
    std::vector<Property> properties = listed_properties(schema, required, where);
    const auto [min, max] = counts_of(schema, "minProperties", "maxProperties", where);
    if (more == nullptr && properties.empty() && required.empty() && min == 0 && max == Expression::kUnbounded) {
      return call(any().object);
    }
    const json::value anything = true;
    const bool open = more != nullptr ? !is_boolean(more, false) : !schema.contains("properties");
    for (const std::string& key : required) {  // those that are not listed
      if (is_boolean(more, false)) {
        fail(fmt::format("{}: {} is required but no property may have this name", where, describe(json::value(key))));
      }
      const json::value& value = more != nullptr ? *more : anything;
      properties.push_back(property(key, value, true, where + "/additionalProperties"));
    }
    Expr others = open ? other_pair(properties, more != nullptr ? *more : anything, where) : nullptr;
    // Two others may have the same name and then count as one.
    if (min > (others != nullptr ? 1 : 0) + static_cast<int>(properties.size()) && others != nullptr) {
      fail(fmt::format(
          "{}: minProperties is {}, with additional properties at most one more than are listed is supported", where,
          min));
    }
    return object_graph(properties, others, min, max);
  }

  std::vector<std::string> required_keys(const json::object& schema, const std::string& where) {
    std::vector<std::string> keys;
    const json::value* list = schema.if_contains("required");
    if (list == nullptr) return keys;
    if (!list->is_array()) fail(fmt::format("{}: required is {}, wanted a list of names", where, describe(*list)));
    for (const json::value& key : list->get_array()) {
      if (!key.is_string()) fail(fmt::format("{}: required holds {}, wanted a name", where, describe(key)));
      if (std::find(keys.begin(), keys.end(), key.get_string()) == keys.end()) keys.emplace_back(key.get_string());
      budget_.take_states(1);
    }
    return keys;
  }

  // Takes the names that are listed out of `required`.
  std::vector<Property> listed_properties(const json::object& schema, std::vector<std::string>& required,
                                          const std::string& where) {
    std::vector<Property> properties;
    const json::value* map = schema.if_contains("properties");
    if (map == nullptr) return properties;
    if (!map->is_object()) fail(fmt::format("{}: properties is {}, wanted an object", where, describe(*map)));
    for (const auto& [key, value] : map->get_object()) {
      budget_.check_time();
      const auto it = std::find(required.begin(), required.end(), std::string_view(key));
      const bool is_required = it != required.end();
      if (is_required) required.erase(it);
      properties.push_back(
          property(key, value, is_required, fmt::format("{}/properties/{}", where, std::string_view(key))));
    }
    return properties;
  }

  Property property(std::string_view key, const json::value& value, bool required, const std::string& where) {
    return {std::string(key), sequence({text(json_quote(key)), json_colon(), call(rule_of(value, where))}), required};
  }

  // A property of any other name. Names are written without escapes here, so that no spelling of a listed name slips
  // in.
  Expr other_pair(const std::vector<Property>& properties, const json::value& value, const std::string& where) {
    CodePoints plain(0x20, 0x10ffff);
    CodePoints special('"', '"');
    special.add('\\', '\\');
    const Expr any_name = repeat(utf8(plain.intersect(special.complement())), 0, Expression::kUnbounded);
    std::vector<Expr> taken;
    for (const Property& p : properties) taken.push_back(text(p.key));
    const Dfa names =
        difference(determinize(any_name, budget_), determinize(choice(std::move(taken)), budget_), budget_);
    return sequence({quoted(automaton(names)), json_colon(), call(rule_of(value, where + "/additionalProperties"))});
  }

  // Nodes: which property comes next, and how many were written (as far as that matters). From each of them the
  // property may be written, or left out if it is optional.
  Expr object_graph(const std::vector<Property>& properties, const Expr& others, int min, int max) {
    const int most = max != Expression::kUnbounded ? std::min<int>(max, static_cast<int>(properties.size()) + max)
                                                   : std::max(1, min);
    const auto width = static_cast<uint32_t>(most) + 1;
    const auto node = [&](size_t next, int written) {
      return 2 + static_cast<uint32_t>(next) * width + static_cast<uint32_t>(written);
    };
    budget_.take_states((properties.size() + 1) * width);
    std::vector<GraphEdge> edges = {{0, node(0, 0), text("{")}};
    const auto write = [&](size_t from, size_t to, int written, const Expr& pair) {
      if (max != Expression::kUnbounded && written == max) return;
      const Expr before = written == 0 ? json_break() : json_comma();
      edges.push_back({node(from, written), node(to, std::min(written + 1, most)), sequence({before, pair})});
    };
    for (size_t i = 0; i < properties.size(); ++i) {
      for (int written = 0; written <= most; ++written) {
        write(i, i + 1, written, properties[i].pair);
        if (!properties[i].required) edges.push_back({node(i, written), node(i + 1, written), text("")});
      }
    }
    const size_t end = properties.size();
    for (int written = 0; written <= most; ++written) {
      if (others != nullptr) write(end, end, written, others);
      if (written >= min) edges.push_back({node(end, written), 1, sequence({json_break(), text("}")})});
    }
    return graph(std::move(edges));
  }

  // ---- Arrays
  // --------------------------------------------------------------------------------------------------------

  Expr array_of(const json::object& schema, const std::string& where) {
    const json::value* items = schema.if_contains("items");
    const json::value* prefix = schema.if_contains("prefixItems");
    auto [min, max] = counts_of(schema, "minItems", "maxItems", where);
    if (is_boolean(schema.if_contains("uniqueItems"), true) && (max == Expression::kUnbounded || max > 1)) {
      fail(fmt::format("{}: uniqueItems is not supported", where));
    }
    if (items != nullptr && items->is_array()) fail(fmt::format("{}: items is a list; use prefixItems", where));
    if (prefix != nullptr && !prefix->is_array()) {
      fail(fmt::format("{}: prefixItems is {}, wanted a list of schemas", where, describe(*prefix)));
    }
    std::vector<Expr> first;
    for (size_t i = 0; prefix != nullptr && i < prefix->get_array().size(); ++i) {
      first.push_back(call(rule_of(prefix->get_array()[i], fmt::format("{}/prefixItems/{}", where, i))));
    }
    const int listed = static_cast<int>(first.size());
    // A list of first items without a word about the others means that there are none, if that is enough.
    if (items == nullptr && prefix != nullptr && min <= listed) {
      max = max == Expression::kUnbounded ? listed : std::min(max, listed);
    }
    const Expr other = call(items != nullptr ? rule_of(*items, where + "/items") : any().value);
    return array_graph(first, other, min, max);
  }

  // Node 2 + n: n items were written.
  Expr array_graph(const std::vector<Expr>& first, const Expr& other, int min, int max) {
    const bool bounded = max != Expression::kUnbounded;
    const int last = bounded ? max : std::max({min, static_cast<int>(first.size()), 1});
    budget_.take_states(static_cast<size_t>(last));
    std::vector<GraphEdge> edges = {{0, 2, text("[")}};
    for (int n = 0; n <= last; ++n) {
      const auto node = static_cast<uint32_t>(2 + n);
      if (n >= min) edges.push_back({node, 1, sequence({json_break(), text("]")})});
      if (n == last && bounded) break;
      const Expr& item = static_cast<size_t>(n) < first.size() ? first[static_cast<size_t>(n)] : other;
      edges.push_back({node, n == last ? node : node + 1, sequence({n == 0 ? json_break() : json_comma(), item})});
    }
    return graph(std::move(edges));
  }

  // ---- Strings and numbers
  // -------------------------------------------------------------------------------------------

  Expr string_of(const json::object& schema, const std::string& where) {
    const auto [min, max] = counts_of(schema, "minLength", "maxLength", where);
    std::vector<Dfa> parts;
    if (const json::value* pattern = schema.if_contains("pattern")) {
      if (!pattern->is_string()) fail(fmt::format("{}: pattern is {}, wanted a text", where, describe(*pattern)));
      parts.push_back(determinize(parse_json_pattern(pattern->get_string(), where + "/pattern", budget_), budget_));
    }
    if (const json::value* format = schema.if_contains("format")) {
      const auto pattern = format_pattern(format->is_string() ? std::string_view(format->get_string()) : "");
      if (!pattern) fail(fmt::format("{}: the format {} is not supported", where, describe(*format)));
      parts.push_back(determinize(parse_json_pattern("^(" + *pattern + ")$", where + "/format", budget_), budget_));
    }
    const bool counted = min > 0 || max != Expression::kUnbounded;
    if (parts.empty() && !counted) return call(any().string);
    if (parts.empty()) return quoted(repeat(counted_character(std::max(min, max)), min, max));
    // Patterns are written with the shortest escapes, so lengths are counted in characters so written.
    if (counted) parts.push_back(determinize(repeat(json_characters(CodePoints::all()), min, max), budget_));
    Dfa all = parts[0];
    for (size_t i = 1; i < parts.size(); ++i) all = intersection(all, parts[i], budget_);
    return quoted(automaton(std::move(all)));
  }

  Expr counted_character(int count) {
    if (count <= kMaxInline) {
      if (!character_) character_ = automaton(determinize(json_character(), budget_));
      return character_;
    }
    if (!rare_) rare_ = add_rule("JSON character", json_rare_character());
    return json_character(*rare_);
  }

  NumberBounds bounds_of(const json::object& schema, const std::string& where) {
    NumberBounds bounds;
    const auto read = [&](const char* key) {
      const json::value* value = schema.if_contains(key);
      auto number = value != nullptr ? to_decimal(*value) : std::nullopt;
      if (value != nullptr && !number) fail(fmt::format("{}: {} is {}, wanted a number", where, key, describe(*value)));
      return number;
    };
    bounds.low = read("minimum");
    bounds.high = read("maximum");
    if (const auto low = read("exclusiveMinimum"); low && (!bounds.low || compare(*low, *bounds.low) >= 0)) {
      bounds.low = low;
      bounds.low_exclusive = true;
    }
    if (const auto high = read("exclusiveMaximum"); high && (!bounds.high || compare(*high, *bounds.high) <= 0)) {
      bounds.high = high;
      bounds.high_exclusive = true;
    }
    return bounds;
  }

  Expr number_of(const json::object& schema, const std::string& where, bool whole) {
    const NumberBounds bounds = bounds_of(schema, where);
    const json::value* step = schema.if_contains("multipleOf");
    if (step == nullptr) {
      if (whole) return integers(bounds, where);
      return bounds.low || bounds.high ? numbers(bounds, where) : call(any().number);
    }
    const auto divisor = to_decimal(*step);
    if (!divisor || divisor->negative || divisor->is_zero()) {
      fail(fmt::format("{}: multipleOf is {}, wanted a number above 0", where, describe(*step)));
    }
    if (divisor->fraction.empty()) {
      if (divisor->whole.size() > 5 || std::stoi(divisor->whole) > kMaxDivisor) {
        fail(fmt::format("{}: multipleOf is {}, at most {} is supported", where, describe(*step), kMaxDivisor));
      }
      const Dfa within = determinize(integers(bounds, where), budget_);
      return automaton(intersection(within, multiples(std::stoi(divisor->whole)), budget_));
    }
    return decimals_of(bounds, *divisor, where, whole);
  }

  // multipleOf 0.1, 0.01 and so on: at most that many digits after the point.
  Expr decimals_of(const NumberBounds& bounds, const Decimal& divisor, const std::string& where, bool whole) {
    const std::string& digits = divisor.fraction;
    if (divisor.whole != "0" || digits.find_first_not_of('0') + 1 != digits.size() || digits.back() != '1') {
      fail(fmt::format("{}: multipleOf is supported for whole numbers and for 0.1, 0.01, 0.001 and so on", where));
    }
    if (whole) return integers(bounds, where);
    const auto places = static_cast<int>(digits.size());
    const Expr digit = byte_range('0', '9');
    const Expr shape = sequence({optional(text("-")), repeat(digit, 1, Expression::kUnbounded),
                                 optional(sequence({text("."), repeat(digit, 1, places)}))});
    return automaton(intersection(determinize(numbers(bounds, where), budget_), determinize(shape, budget_), budget_));
  }

  SchemaDocument document_;
  Budget& budget_;
  Grammar grammar_;
  std::unordered_map<std::string, RuleId> rules_;  // by the schema's text
  std::deque<Pending> pending_;
  std::optional<AnyRules> any_;
  std::optional<RuleId> rare_;
  Expr character_;
};

}  // namespace

Grammar json_schema_grammar(std::string_view schema, Budget& budget) {
  return Compiler(parse_json(schema, "json_schema", ErrorCode::kSchemaInvalid), budget).run();
}

Grammar json_object_grammar(Budget& budget) { return Compiler(true, budget).any_object_only(); }

}  // namespace idefics::grammar
