// Random schemas, random walks through their masks: every finished text parses and is valid, says a validator that
// knows nothing of grammars. IDEFICS_SCHEMAS sets the number of schemas (10000 is the long run).
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <random>

#include "base/json.h"
#include "base/utf8.h"
#include "grammar/test_grammars.h"

namespace idefics::grammar {
namespace {

constexpr int32_t kStop = 1357;

class Generator {
 public:
  explicit Generator(uint32_t seed) : random_(seed) {}
  uint32_t below(uint32_t n) { return random_() % n; }

  json::value schema(int depth) {
    const uint32_t kind = below(depth > 0 ? 12 : 7);
    switch (kind) {
      case 0: return {{"type", "boolean"}};
      case 1: return json::object{{"type", json::array{"null", "integer"}}};
      case 2: return number("integer");
      case 3: return number("number");
      case 4:
      case 5: return string();
      case 6: return json::object{{"enum", json::array{"red", 1, nullptr, "a\"b\n", json::array{1, 2}}}};
      case 7: return json::object{{"anyOf", json::array{schema(depth - 1), schema(depth - 1)}}};
      case 8: return array(depth);
      case 9: return json::object{{"$ref", "#/$defs/shared"}};
      default: return object(depth);
    }
  }

  json::value root() {
    json::object result = object(3, 2);
    result["$defs"] = {{"shared", shared()}};
    return result;
  }

 private:
  json::value shared() {
    json::object result{{"type", "object"}};
    result["properties"] = {{"v", schema(0)}, {"next", {{"$ref", "#/$defs/shared"}}}};
    result["required"] = json::array{"v"};
    return result;
  }

  json::value number(const char* type) {
    json::object result{{"type", type}};
    const bool whole = std::string_view(type) == "integer";
    const auto value = [&](int64_t v) -> json::value {
      return whole || below(2) ? json::value(v) : json::value(static_cast<double>(v) + 0.25 * below(4));
    };
    const int64_t low = static_cast<int64_t>(below(3000)) - 1500;
    if (below(2)) result[below(2) ? "minimum" : "exclusiveMinimum"] = value(low);
    if (below(2)) result[below(2) ? "maximum" : "exclusiveMaximum"] = value(low + 20 + below(2000));
    if (whole && below(3) == 0) result["multipleOf"] = 1 + below(9);
    return result;
  }

  json::value string() {
    json::object result{{"type", "string"}};
    if (below(2)) result["minLength"] = below(4);
    if (below(2)) result["maxLength"] = 4 + below(below(3) ? 10 : 400);
    if (below(4) == 0) {
      const char* formats[] = {"date", "time", "date-time", "uuid", "ipv4"};
      return {{"type", "string"}, {"format", formats[below(5)]}};
    }
    if (below(4) == 0) result["pattern"] = below(2) ? "^[a-c\"]+$" : "a";
    return result;
  }

  json::value array(int depth) {
    json::object result{{"type", "array"}, {"items", schema(depth - 1)}};
    if (below(2)) result["minItems"] = below(3);
    if (below(2)) result["maxItems"] = 3 + below(3);
    if (below(4) == 0) result["prefixItems"] = json::array{schema(0), schema(0)};
    return result;
  }

  json::object object(int depth, uint32_t least = 0) {
    json::object properties;
    json::array required;
    const uint32_t count = least + below(5);
    for (uint32_t i = 0; i < count; ++i) {
      const char* names[] = {"id", "name", "a \"b\"", "é", "n", "total", "v"};
      const std::string name = names[below(7)];
      properties[name] = schema(depth - 1);
      if (below(2)) required.emplace_back(name);
    }
    json::object result{{"type", "object"}, {"properties", properties}, {"required", required}};
    const uint32_t more = below(4);
    if (more == 0) result["additionalProperties"] = false;
    if (more == 1) result["additionalProperties"] = schema(0);
    if (more == 2 && below(2)) result["maxProperties"] = 1 + count;
    return result;
  }

  std::mt19937 random_;
};

// JSON Schema as the specification has it, for the keywords that the generator uses.
class Validator {
 public:
  explicit Validator(const json::value& root) : root_(root) {}

  bool valid(const json::value& schema, const json::value& v) const {
    const json::object& s = schema.as_object();
    if (s.contains("$ref")) return valid(root_.as_object().at("$defs").as_object().at("shared"), v);
    if (const auto* any = s.if_contains("anyOf")) {
      bool one = false;
      for (const auto& branch : any->as_array()) one = one || valid(branch, v);
      if (!one) return false;
    }
    if (const auto* list = s.if_contains("enum")) {
      bool one = false;
      for (const auto& item : list->as_array()) one = one || item == v;
      if (!one) return false;
    }
    return type_fits(s, v) && number_fits(s, v) && string_fits(s, v) && array_fits(s, v) && object_fits(s, v);
  }

 private:
  static bool is_type(std::string_view type, const json::value& v) {
    if (type == "integer") return v.is_number() && std::trunc(v.to_number<double>()) == v.to_number<double>();
    if (type == "number") return v.is_number();
    if (type == "string") return v.is_string();
    if (type == "boolean") return v.is_bool();
    if (type == "null") return v.is_null();
    return type == "array" ? v.is_array() : v.is_object();
  }

  static bool type_fits(const json::object& s, const json::value& v) {
    const auto* type = s.if_contains("type");
    if (type == nullptr) return true;
    if (type->is_string()) return is_type(type->get_string(), v);
    bool one = false;
    for (const auto& t : type->as_array()) one = one || is_type(t.as_string(), v);
    return one;
  }

  static bool number_fits(const json::object& s, const json::value& v) {
    if (!v.is_number()) return true;
    const double x = v.to_number<double>();
    const auto bound = [&s](const char* key, double otherwise) {
      return s.contains(key) ? s.at(key).to_number<double>() : otherwise;
    };
    return x >= bound("minimum", -INFINITY) && x <= bound("maximum", INFINITY) &&
           x > bound("exclusiveMinimum", -INFINITY) && x < bound("exclusiveMaximum", INFINITY) &&
           (!s.contains("multipleOf") || is_multiple(v, s.at("multipleOf").to_number<int64_t>()));
  }

  // 12.0 is a whole number as well, as another branch of anyOf may write it.
  static bool is_multiple(const json::value& v, int64_t step) {
    if (const int64_t* whole = v.if_int64()) return *whole % step == 0;
    return std::fmod(v.to_number<double>(), static_cast<double>(step)) == 0;
  }

  static bool string_fits(const json::object& s, const json::value& v) {
    if (!v.is_string()) return true;
    const std::string_view text = v.get_string();
    if (!is_utf8(text)) return false;
    size_t length = 0;
    for (const char c : text) length += (static_cast<uint8_t>(c) & 0xc0) != 0x80;
    if (s.contains("minLength") && length < s.at("minLength").to_number<size_t>()) return false;
    if (s.contains("maxLength") && length > s.at("maxLength").to_number<size_t>()) return false;
    if (const auto* pattern = s.if_contains("pattern")) {
      const bool found = pattern->as_string() == "a"
                             ? text.find('a') != std::string_view::npos
                             : !text.empty() && text.find_first_not_of("abc\"") == std::string_view::npos;
      if (!found) return false;
    }
    const auto* format = s.if_contains("format");
    return format == nullptr || format_fits(format->as_string(), text);
  }

  // Shape by example: 0 stands for a digit or, in a uuid, for a hexadecimal one.
  static bool format_fits(std::string_view format, std::string_view text) {
    const auto looks_like = [&](std::string_view example, std::string_view part) {
      for (size_t i = 0; i < example.size(); ++i) {
        if (i >= part.size()) return false;
        const bool digit = std::isxdigit(static_cast<uint8_t>(part[i])) != 0;
        if (example[i] == '0' ? !digit : example[i] != part[i]) return false;
      }
      return true;
    };
    if (format == "uuid") return text.size() == 36 && looks_like("00000000-0000-0000-0000-000000000000", text);
    if (format == "date") return text.size() == 10 && looks_like("0000-00-00", text);
    if (format == "time") return looks_like("00:00:00", text);
    if (format == "date-time") return looks_like("0000-00-00T00:00:00", text);
    int parts = 0, value = -1;
    for (const char c : std::string(text) + ".") {
      if (c == '.') {
        if (value < 0 || value > 255) return false;
        ++parts;
        value = -1;
      } else {
        value = std::max(value, 0) * 10 + (c - '0');
      }
    }
    return parts == 4;
  }

  bool array_fits(const json::object& s, const json::value& v) const {
    if (!v.is_array()) return true;
    const json::array& list = v.get_array();
    if (s.contains("minItems") && list.size() < s.at("minItems").to_number<size_t>()) return false;
    if (s.contains("maxItems") && list.size() > s.at("maxItems").to_number<size_t>()) return false;
    const auto* prefix = s.if_contains("prefixItems");
    for (size_t i = 0; i < list.size(); ++i) {
      const bool listed = prefix != nullptr && i < prefix->as_array().size();
      if (listed && !valid(prefix->as_array()[i], list[i])) return false;
      if (!listed && s.contains("items") && !valid(s.at("items"), list[i])) return false;
    }
    return true;
  }

  bool object_fits(const json::object& s, const json::value& v) const {
    if (!v.is_object()) return true;
    const json::object& object = v.get_object();
    if (const auto* required = s.if_contains("required")) {
      for (const auto& key : required->as_array()) {
        if (!object.contains(key.as_string())) return false;
      }
    }
    if (s.contains("maxProperties") && object.size() > s.at("maxProperties").to_number<size_t>()) return false;
    for (const auto& [key, value] : object) {
      const json::value* own = s.contains("properties") ? s.at("properties").as_object().if_contains(key) : nullptr;
      const json::value* more = s.if_contains("additionalProperties");
      if (own != nullptr && !valid(*own, value)) return false;
      if (own == nullptr && more != nullptr && (more->is_bool() ? !more->get_bool() : !valid(*more, value)))
        return false;
    }
    return true;
  }

  const json::value& root_;
};

// A finished text, or what is there after `max_tokens`.
struct Finished {
  std::string text;
  bool complete;
};

// Whether a token ends a string, list or object after `text`; now and then it is wrong, within strings.
bool closes(std::string_view text, std::string_view token) {
  if (token.starts_with('}') || token.starts_with(']')) return true;
  const size_t last = text.find_last_not_of(" \n");
  const bool opens = last == std::string_view::npos || text[last] == '{' || text[last] == ',' || text[last] == ':';
  return token.starts_with('"') && !opens;
}

// How often a walk closes what it has opened: of `out_of` steps where it may, one prefers to, the others prefer not to.
// Some walks so go on for long; beyond `patience` tokens all hurry to their end.
class Walker {
 public:
  Walker(const std::shared_ptr<const CompiledGrammar>& grammar, uint32_t seed)
      : random_(seed), constraint_(grammar, {kStop}), bits_(test_vocabulary()->mask_words()) {
    const uint32_t bias[] = {3, 16, 64, 256};
    out_of_ = bias[random_() % 4];
    patience_ = out_of_ > 4 ? 40 + static_cast<int>(random_() % 200) : 20;
  }

  Finished run(int max_tokens) {
    for (int i = 0; i < max_tokens && !constraint_.must_stop(); ++i) {
      if (random_() % 2 == 0) take_forced();
      if (constraint_.must_stop()) break;
      const int32_t id = choose(i > patience_ ? random_() % 3 == 0 : random_() % out_of_ == 0);
      EXPECT_TRUE(constraint_.accept(id));
      if (id == kStop) break;
      text_ += test_vocabulary()->bytes(id);
    }
    return {text_, constraint_.is_complete()};
  }

 private:
  void take_forced() {
    for (const int32_t id : constraint_.forced_tokens()) {
      EXPECT_TRUE(constraint_.accept(id));
      text_ += test_vocabulary()->bytes(id);
    }
  }

  // Of the allowed tokens one that closes, or one that does not, if there is one.
  int32_t choose(bool close) {
    constraint_.mask(bits_);
    std::vector<int32_t> wanted, others;
    for (int32_t id = 0; id < test_vocabulary()->size(); ++id) {
      if ((bits_[static_cast<size_t>(id) / 32] >> (id % 32) & 1) == 0) continue;
      const bool is_end = id == kStop || closes(text_, test_vocabulary()->bytes(id));
      (is_end == close ? wanted : others).push_back(id);
    }
    const auto& ids = wanted.empty() ? others : wanted;
    return ids[random_() % ids.size()];
  }

  std::mt19937 random_;
  TokenConstraint constraint_;
  std::vector<uint32_t> bits_;
  std::string text_;
  uint32_t out_of_;
  int patience_;
};

// IDEFICS_TEXTS names a file for the schemas and their texts, one line of JSON for each schema, for other validators.
class Record {
 public:
  Record() {
    if (const char* path = std::getenv("IDEFICS_TEXTS")) file_.open(path);
  }
  void add(const json::value& schema, const std::vector<std::string>& texts) {
    if (!file_.is_open()) return;
    json::array list;
    for (const std::string& text : texts) list.emplace_back(text);
    file_ << json::serialize(json::object{{"schema", schema}, {"texts", list}}) << "\n";
  }

 private:
  std::ofstream file_;
};

TEST(RandomSchemas, every_finished_text_parses_and_is_valid) {
  const char* wish = std::getenv("IDEFICS_SCHEMAS");
  const int count = wish != nullptr ? std::atoi(wish) : 150;
  int finished = 0, satisfiable = 0;
  std::vector<size_t> lengths;
  Record record;
  for (int i = 0; i < count; ++i) {
    const json::value schema = Generator(static_cast<uint32_t>(i)).root();
    const std::string source = json::serialize(schema);
    const std::string said = refusal(Kind::kJsonSchema, source, {.build_time = std::chrono::seconds(60)});
    if (said.find("no text can satisfy it") != std::string::npos) continue;  // e.g. no multiple of 7 within its bounds
    ASSERT_EQ(said, "") << source;
    ++satisfiable;
    const auto grammar = compile(Kind::kJsonSchema, source, {.build_time = std::chrono::seconds(60)});
    std::vector<std::string> texts;
    for (uint32_t seed = 0; seed < 3; ++seed) {
      const Finished result = Walker(grammar, static_cast<uint32_t>(i) * 3 + seed).run(600);
      if (!result.complete) continue;
      ++finished;
      json::value value;
      ASSERT_NO_THROW(value = parse_json(result.text, "text")) << result.text << "\n" << source;
      ASSERT_TRUE(Validator(schema).valid(schema, value)) << result.text << "\n" << source;
      texts.push_back(result.text);
      lengths.push_back(result.text.size());
    }
    record.add(schema, texts);
  }
  EXPECT_GT(satisfiable, count * 9 / 10);
  EXPECT_GT(finished, count * 3 / 2);  // most walks end by themselves
  std::sort(lengths.begin(), lengths.end());
  EXPECT_GT(lengths[lengths.size() / 2], 60u);
  fmt::print("{} schemas, {} finished texts; bytes: a quarter at most {}, half {}, three quarters {}, the longest {}\n",
             satisfiable, finished, lengths[lengths.size() / 4], lengths[lengths.size() / 2],
             lengths[lengths.size() * 3 / 4], lengths.back());
}

}  // namespace
}  // namespace idefics::grammar
