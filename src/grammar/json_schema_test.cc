// Which texts the grammars of JSON schemas hold, and which schemas are refused.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>

#include "base/json.h"
#include "grammar/test_grammars.h"

namespace idefics::grammar {
namespace {

struct Row {
  std::string schema;
  std::vector<std::string> held, not_held;
};

void check(const std::vector<Row>& rows) {
  for (const Row& row : rows) {
    SCOPED_TRACE(row.schema);
    const auto grammar = compile(Kind::kJsonSchema, row.schema);
    for (const std::string& text : row.held) EXPECT_TRUE(holds(*grammar, text)) << text;
    for (const std::string& text : row.not_held) EXPECT_FALSE(holds(*grammar, text)) << text;
  }
}

TEST(JsonObject, holds_any_object_and_nothing_else) {
  const auto grammar = compile(Kind::kJsonObject, "");
  for (const char* text : {"{}", " {}", "{\"a\": 1, \"b\":[true, null, {\"c\": -1.5e3}]}",
                           "{\n  \"a\": \"x\\n\\u00e9é😀\"\n}", "{\"\":{}}"}) {
    EXPECT_TRUE(holds(*grammar, text)) << text;
  }
  for (const char* text : {"", "[]", "1", "{", "{\"a\"}", "{\"a\":1,}", "{a:1}", "{\"a\":01}", "{\"a\":\"\n\"}", "{}{}",
                           "{\"a\":\"\\ud800\"}", "{\"a\":\"\xff\"}", "{\"a\":.5}", "{   }", "{\"a\":tru}"}) {
    EXPECT_FALSE(holds(*grammar, text)) << text;
  }
}

TEST(JsonObject, nesting_ends_below_what_readers_take) {
  const auto grammar = compile(Kind::kJsonObject, "");
  const auto nested = [](size_t n) { return "{\"a\":" + std::string(n, '[') + std::string(n, ']') + "}"; };
  EXPECT_TRUE(holds(*grammar, nested(50)));
  EXPECT_NO_THROW(parse_json(nested(60), "test"));
  EXPECT_FALSE(holds(*grammar, nested(63), true));
}

TEST(JsonSchema, kinds_and_literals) {
  check(
      {{R"({"type":"boolean"})", {"true", "false", " true"}, {"null", "\"true\"", "true ", "  true"}},
       {R"({"type":["string","null"]})", {"null", "\"\""}, {"1"}},
       {R"({"enum":["a","b\"c",1,null,1.5,[1,2],{"k":"v"}]})",
        {"\"a\"", "\"b\\\"c\"", "1", "null", "1.5", "[1,2]", "[1, 2]", "{\"k\": \"v\"}"},
        {"a", "\"c\"", "2", "[2,1]"}},
       {R"({"const":"é"})", {"\"é\""}, {"\"e\""}},
       {R"({"enum":["a",1,2.5],"type":["integer","string"]})", {"\"a\"", "1"}, {"2.5"}},
       {"true", {"1", "{}", "[[]]", "\"\""}, {""}},
       {"{}", {"1", "{}"}, {""}},
       {R"({"title":"T","description":"d","default":1,"examples":[1],"$comment":"c","x-order":1})", {"null"}, {"x"}}});
}

TEST(JsonSchema, objects_keep_the_order_of_their_properties) {
  const std::string abc = R"({"type":"object","properties":{"a":{"type":"integer"},"b":{"type":"integer"},
    "c":{"type":"integer"}},"required":["b"]})";
  check(
      {{abc,
        {"{\"b\":1}", "{\"a\": 1, \"b\": 2}", "{\"a\":1,\"b\":2,\"c\":3}", "{\"b\":1,\"c\":2}",
         "{\n  \"a\": 1,\n  \"b\": 2\n}"},
        {"{}", "{\"a\":1}", "{\"b\":1,\"a\":2}", "{\"b\":1,\"b\":2}", "{\"b\":1,\"d\":2}", "{\"b\":1,}", "{,\"b\":1}"}},
       {R"({"properties":{"a":{"type":"null"}}})", {"{}", "{\"a\":null}"}, {"{\"a\":1}", "{\"z\":1}", "1"}},
       {R"({"type":"object","properties":{"a":true},"additionalProperties":{"type":"integer"}})",
        {"{}", "{\"a\":\"x\",\"b\":1,\"ab\":2}", "{\"\":1}"},
        {"{\"b\":1,\"a\":\"x\"}", "{\"b\":\"x\"}", "{\"\\u0061\":1}"}},
       {R"({"type":"object","additionalProperties":{"type":"integer"},"required":["k"]})",
        {"{\"k\":1}", "{\"k\":1,\"z\":2}"},
        {"{}", "{\"z\":2}", "{\"k\":null}"}},
       {R"({"type":"object","additionalProperties":false})", {"{}", "{ }"}, {"{\"a\":1}"}},
       {R"({"properties":{"a":true,"b":true,"c":true},"minProperties":2,"maxProperties":2})",
        {"{\"a\":1,\"b\":1}", "{\"a\":1,\"c\":1}"},
        {"{}", "{\"a\":1}", "{\"a\":1,\"b\":1,\"c\":1}"}},
       {R"({"type":"object","additionalProperties":true,"maxProperties":1})",
        {"{}", "{\"q\":1}"},
        {"{\"q\":1,\"r\":1}"}},
       {R"({"type":"object","properties":{"a":false,"b":true}})", {"{}", "{\"b\":1}"}, {"{\"a\":1}"}}});
}

TEST(JsonSchema, arrays) {
  check(
      {{R"({"type":"array","items":{"type":"integer"}})", {"[]", "[1]", "[1, 2,3]", "[\n 1\n]"}, {"[\"a\"]", "[1,]"}},
       {R"({"type":"array","items":{"type":"null"},"minItems":2,"maxItems":3})",
        {"[null,null]", "[null,null,null]"},
        {"[]", "[null]", "[null,null,null,null]"}},
       {R"({"prefixItems":[{"type":"integer"},{"type":"null"}]})", {"[]", "[1]", "[1,null]"}, {"[null]", "[1,null,1]"}},
       {R"({"prefixItems":[{"type":"integer"}],"items":{"type":"null"},"minItems":1})",
        {"[1]", "[1,null,null]"},
        {"[]", "[1,1]"}},
       {R"({"type":"array","items":false})", {"[]"}, {"[1]"}},
       {R"({"type":"array","items":{"type":"null"},"minItems":3})", {"[null,null,null,null]"}, {"[null,null]"}}});
}

TEST(JsonSchema, strings) {
  check({{R"({"type":"string","minLength":2,"maxLength":3})",
          {"\"ab\"", "\"é字😀\"", "\"\\n\\u00e9\"", "\"\\ud83d\\ude00x\""},
          {"\"a\"", "\"abcd\"", "\"\\ud83dx\""}},
         {R"({"type":"string","maxLength":300})",
          {"\"\"", "\"é\\n\\u00e9\"", "\"" + std::string(300, 'a') + "\""},
          {"\"" + std::string(301, 'a') + "\"", "\"\\q\""}},
         {R"({"pattern":"b+"})", {"\"b\"", "\"abbc\""}, {"\"a\"", "\"\""}},
         {R"({"pattern":"^[a-z]+$","maxLength":3})", {"\"abc\""}, {"\"abcd\"", "\"A\"", "\"\""}},
         {R"({"pattern":"^a\"\\\\\n.$"})", {"\"a\\\"\\\\\\n!\""}, {"\"a\"\""}},
         {R"({"type":"string","format":"date"})",
          {"\"2024-02-29\"", "\"2000-02-29\"", "\"2023-12-31\""},
          {"\"2023-02-29\"", "\"1900-02-29\"", "\"2023-13-01\"", "\"2023-04-31\""}},
         {R"({"type":"string","format":"date-time"})",
          {"\"2024-01-02T03:04:05Z\"", "\"2024-01-02T03:04:05.5+02:00\""},
          {"\"2024-01-02 03:04:05Z\"", "\"2024-01-02T24:00:00Z\""}},
         {R"({"type":"string","format":"ipv4"})", {"\"192.168.0.255\""}, {"\"256.1.1.1\"", "\"1.1.1\""}},
         {R"({"type":"string","format":"uuid"})", {"\"123e4567-e89b-12d3-a456-426614174000\""}, {"\"123\""}},
         {R"({"type":"string","format":"email"})", {"\"a.b@example.org\""}, {"\"a@\"", "\"@b.c\""}}});
}

TEST(JsonSchema, numbers) {
  check({{R"({"type":"integer"})",
          {"0", "-12", "999999999999999999"},
          {"01", "-0", "1.0", "1e3", "+1", "1000000000000000000"}},
         {R"({"type":"integer","minimum":-3,"maximum":12})",
          {"-3", "-1", "0", "9", "10", "12"},
          {"-4", "13", "-10", "100"}},
         {R"({"type":"integer","minimum":95,"maximum":1204})",
          {"95", "99", "100", "999", "1204"},
          {"94", "1205", "9", "2000"}},
         {R"({"type":"integer","exclusiveMinimum":0,"exclusiveMaximum":3})", {"1", "2"}, {"0", "3"}},
         {R"({"type":"integer","minimum":1.5,"maximum":3.5})", {"2", "3"}, {"1", "4"}},
         {R"({"type":"integer","minimum":-1.5,"maximum":-0.5})", {"-1"}, {"-2", "0", "-0"}},
         {R"({"type":"integer","multipleOf":7,"minimum":0,"maximum":100})", {"0", "7", "98"}, {"1", "105", "10"}},
         {R"({"type":"integer","maximum":9223372036854775807,"minimum":0})", {"0", "5"}, {"-1"}},
         {R"({"type":"number"})", {"0", "-0.5", "1.25e-10", "1E5"}, {".5", "1.", "1e", "00"}},
         {R"({"type":"number","minimum":0,"maximum":1})",
          {"0", "0.0", "0.25", "1", "1.000"},
          {"1.001", "-0.1", "2", "1e0"}},
         {R"({"type":"number","exclusiveMinimum":0,"exclusiveMaximum":1})", {"0.5", "0.001"}, {"0", "0.0", "1", "1.0"}},
         {R"({"type":"number","minimum":-1.25,"maximum":10.5})",
          {"-1.25", "-1.2", "0", "10.5", "10.49"},
          {"-1.26", "10.51", "11", "-2", "-0"}},
         {R"({"type":"number","multipleOf":0.01,"minimum":0})", {"1", "1.5", "1.25"}, {"1.255"}},
         {R"({"type":"number","minimum":0.1,"exclusiveMaximum":0.3})", {"0.1", "0.29999"}, {"0.3", "0.30", "0.09"}}});
}

TEST(JsonSchema, combinations_and_references) {
  check(
      {{R"({"anyOf":[{"type":"integer"},{"const":"x"}]})", {"1", "\"x\""}, {"\"y\""}},
       {R"({"oneOf":[{"type":"integer"},{"type":"string"},{"type":"null"}]})", {"1", "\"y\"", "null"}, {"true"}},
       {R"({"oneOf":[{"properties":{"k":{"const":"a"},"v":{"type":"integer"}},"required":["k","v"]},
                       {"properties":{"k":{"const":"b"},"w":{"type":"null"}},"required":["k","w"]}]})",
        {"{\"k\":\"a\",\"v\":1}", "{\"k\":\"b\",\"w\":null}"},
        {"{\"k\":\"a\",\"w\":null}"}},
       {R"({"allOf":[{"type":"object","properties":{"a":{"type":"integer"}}},{"properties":{"b":true},"required":["a"]},
                       {"properties":{"a":{"minimum":5}}}]})",
        {"{\"a\":5}", "{\"a\":9,\"b\":[]}"},
        {"{}", "{\"a\":4}"}},
       {R"({"properties":{"a":true,"b":true},"anyOf":[{"required":["a"]},{"required":["b"]}]})",
        {"{\"a\":1}", "{\"b\":1}", "{\"a\":1,\"b\":1}"},
        {"{}"}},
       {R"({"$ref":"#/$defs/n","$defs":{"n":{"properties":{"v":{"type":"integer"},"next":{"$ref":"#/$defs/n"}},
             "required":["v"]}}})",
        {"{\"v\":1}", "{\"v\":1,\"next\":{\"v\":2,\"next\":{\"v\":3}}}"},
        {"{\"next\":{\"v\":2}}"}},
       {R"({"properties":{"c":{"type":"array","items":{"$ref":"#"}}}})",
        {"{}", "{\"c\":[{\"c\":[]},{}]}"},
        {"{\"c\":[1]}"}},
       {R"({"$ref":"#/$defs/a~1b%25","$defs":{"a/b%":{"type":"null"}}})", {"null"}, {"1"}},
       {R"({"properties":{"a":{"$ref":"#/definitions/s","minLength":2}},"definitions":{"s":{"type":"string"}}})",
        {"{\"a\":\"xy\"}"},
        {"{\"a\":\"x\"}"}}});
}

TEST(JsonSchema, what_would_change_validity_and_is_not_supported_is_refused_by_name) {
  const std::vector<std::pair<std::string, std::string>> rows = {
      {R"({"properties":{"a":{"not":{}}}})", "#/properties/a: the keyword \"not\" is not supported"},
      {R"({"if":{}})", "\"if\""},
      {R"({"patternProperties":{"a":{}}})", "\"patternProperties\""},
      {R"({"requried":["a"]})", "\"requried\""},
      {R"({"type":"array","uniqueItems":true})", "uniqueItems is not supported"},
      {R"({"type":"array","contains":{}})", "\"contains\""},
      {R"({"type":"string","format":"uri"})", "the format \"uri\" is not supported"},
      {"{\"type\":\"string\",\"pattern\":\"(?=a)\"}", "#/pattern: lookaround"},
      {R"({"type":"text"})", "type is \"text\""},
      {R"({"type":"integer","minimum":5,"maximum":4})", "no text can satisfy it"},
      {R"({"type":"object","properties":{"a":false},"required":["a"]})", "no text can satisfy it"},
      {R"({"properties":{},"required":["a"],"additionalProperties":false})", "is required but no property"},
      {R"({"enum":[]})", "no text can satisfy it"},
      {R"({"enum":["a"],"minLength":1})", "minLength beside enum"},
      {R"({"oneOf":[{"type":"integer"},{"type":"number"}]})", "#/oneOf: a value may be valid under 0 and 1"},
      {R"({"oneOf":[{"properties":{"a":true}},{"properties":{"b":true}}]})", "at once"},
      {R"({"$ref":"#"})", "no text can satisfy it"},
      {R"({"anyOf":[{"$ref":"#"},{"const":1}]})", "left recursion"},
      {R"({"$ref":"#/nowhere"})", "names nothing"},
      {R"({"$ref":"http://example.org/a"})", "is not supported, wanted a place in the same schema"},
      {R"({"allOf":[{"$ref":"#"}]})", "nested more than"},
      {R"({"properties":{"a":{"$ref":"#"}},"required":["a"]})", "no text can satisfy it"},
      {R"({"items":[{}]})", "use prefixItems"},
      {R"({"type":"number","multipleOf":0.3})", "multipleOf is supported for"},
      {R"({"exclusiveMinimum":true})", "exclusiveMinimum is true, wanted a number"},
      {R"({"minLength":-1})", "minLength is -1, wanted a whole number"},
      {R"({"type":"number","exclusiveMinimum":0.30000000000000004})", "digits after the point"},
      {"3", "wanted a schema"},
      {"{", "not valid JSON"},
      {std::string(70, '[') + std::string(70, ']'), "not valid JSON"},
  };
  for (const auto& [schema, message] : rows) {
    const std::string said = refusal(Kind::kJsonSchema, schema);
    EXPECT_NE(said.find(message), std::string::npos) << schema.substr(0, 200) << "\nsaid: " << said;
    EXPECT_EQ(said.find('\n'), std::string::npos) << said;
  }
}

TEST(JsonSchema, large_schemas_end_in_an_error_or_in_time) {
  std::string names = "{\"enum\":[";
  for (int i = 0; i < 100'000; ++i) names += (i ? ",\"" : "\"") + std::to_string(i * 7919L) + "\"";
  EXPECT_NE(refusal(Kind::kJsonSchema, names + "]}"), "");
  const Limits quick{.build_time = std::chrono::milliseconds(100)};
  EXPECT_NE(refusal(Kind::kJsonSchema,
                    R"({"type":"array","maxItems":100000,"items":{"type":"array","maxItems":100000}})", quick)
                .find("grammar: "),
            std::string::npos);
  std::string chain = "{\"$ref\":\"#/$defs/d0\",\"$defs\":{";
  for (int i = 0; i < 3000; ++i) {
    chain += "\"d" + std::to_string(i) + "\":{\"$ref\":\"#/$defs/d" + std::to_string(i + 1) + "\"},";
  }
  EXPECT_EQ(refusal(Kind::kJsonSchema, chain + "\"d3000\":{\"type\":\"null\"}}}"), "");
  EXPECT_NE(refusal(Kind::kJsonSchema, std::string(2 << 20, ' ')).find("at most"), std::string::npos);
}

TEST(JsonSchema, a_maximum_below_its_minimum_leaves_no_text) {
  for (const char* schema :
       {R"({"type":"string","minLength":5,"maxLength":3})", R"({"type":"array","minItems":2,"maxItems":1})",
        R"({"type":"object","minProperties":2,"maxProperties":1})",
        R"({"type":"string","pattern":"^a{9}$","minLength":5,"maxLength":3})"}) {
    EXPECT_NE(refusal(Kind::kJsonSchema, schema), "") << schema;
  }
  check({{R"({"anyOf":[{"type":"string","minLength":5,"maxLength":3},{"type":"null"}]})",
          {"null"},
          {"\"abcde\"", "\"abc\""}}});
}

TEST(JsonSchema, items_of_schemas_that_hold_together_meet_place_by_place) {
  check(
      {{R"({"allOf":[{"type":"array","prefixItems":[{"type":"integer"}],"items":true},{"items":{"type":"integer","minimum":5}}]})",
        {"[]", "[5]", "[5,6]"},
        {"[1]", "[5,\"a\"]", "[5,1]"}},
       {R"({"type":"array","allOf":[{"prefixItems":[{"minimum":3}],"items":{"type":"integer"}},
           {"prefixItems":[{"type":"integer"},{"const":7}],"items":{"type":"integer","maximum":9}}]})",
        {"[3]", "[3,7]", "[3,7,9]"},
        {"[2]", "[3,8]", "[3,7,10]"}}});
  EXPECT_NE(refusal(Kind::kJsonSchema, R"({"type":"array","minItems":1,"allOf":[{"prefixItems":[{"type":"integer"}]},
    {"items":{"type":"string"}}]})"),
            "");
}

// `count` parts, with commas between them; # in a part is its number.
std::string many(int count, const std::string& part) {
  std::string all;
  for (int i = 0; i < count; ++i) {
    std::string one = part;
    if (const size_t at = one.find('#'); at != std::string::npos) one.replace(at, 1, std::to_string(i));
    all += (i > 0 ? "," : "") + one;
  }
  return all;
}

std::string repeated(int count, const std::string& part) {
  std::string all;
  for (int i = 0; i < count; ++i) all += part;
  return all;
}

// A chain of `count` definitions, each made of the one before it; # in `link` is that one's name.
std::string chain_of(int count, const std::string& link) {
  std::string definitions = R"("d0":{"type":"integer"})";
  for (int i = 1; i < count; ++i) {
    std::string one = link;
    for (size_t at; (at = one.find('#')) != std::string::npos;) {
      one.replace(at, 1, "\x01/$defs/d" + std::to_string(i - 1));
    }
    std::replace(one.begin(), one.end(), '\x01', '#');
    definitions += ",\"d" + std::to_string(i) + "\":" + one;
  }
  return R"({"$ref":"#/$defs/d)" + std::to_string(count - 1) + R"(","$defs":{)" + definitions + "}}";
}

TEST(JsonSchema, definitions_that_double_at_each_step_do_not_double_the_work) {
  const std::string twice = R"({"allOf":[{"$ref":"#"},{"$ref":"#"}]})";
  check({{chain_of(30, twice), {"1"}, {"\"a\""}}});
  const std::string either = R"({"oneOf":[{"type":"object","properties":{"k":{"const":1},"c":{"$ref":"#"}},"required":
    ["k","c"]},{"type":"object","properties":{"k":{"const":2},"c":{"$ref":"#"}},"required":["k","c"]}]})";
  check(
      {{chain_of(40, either), {}, {"1"}}, {chain_of(3, either), {"{\"k\":1,\"c\":{\"k\":2,\"c\":5}}"}, {"{\"k\":3}"}}});
  const std::string mixed = R"({"type":"object","properties":{"c":{"allOf":[{"$ref":"#"},{"title":"t"}]},"e":{"anyOf":
    [{"$ref":"#"},{"type":"null"}]}}})";
  check({{chain_of(30, mixed), {"{}", "{\"c\":{}}", "{\"e\":null}"}, {"{\"c\":null}"}}});
  for (
      const std::string& source :
      {chain_of(40, R"({"allOf":[{"$ref":"#"},{"minimum":1},{"allOf":[{"$ref":"#"},{"maximum":9}]}]})"),
       R"({"allOf":[)" + many(12, R"({"anyOf":[{"minimum":#},{"maximum":7}]})") + "]}",
       chain_of(
           60,
           R"({"oneOf":[{"allOf":[{"$ref":"#"},{"required":["a"]}]},{"allOf":[{"$ref":"#"},{"required":["b"]}]}]})")}) {
    const auto start = std::chrono::steady_clock::now();
    EXPECT_NE(refusal(Kind::kJsonSchema, source, {.build_time = std::chrono::milliseconds(200)}), "");
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(10));
  }
}

TEST(JsonSchema, one_of_tells_apart_what_all_of_and_limits_tell_apart) {
  check({{R"({"oneOf":[{"allOf":[{"$ref":"#/$defs/base"},{"properties":{"k":{"const":"a"}},"required":["k"]}]},
            {"allOf":[{"$ref":"#/$defs/base"},{"properties":{"k":{"const":"b"}},"required":["k"]}]}],
            "$defs":{"base":{"type":"object","properties":{"id":{"type":"integer"}}}}})",
          {R"({"id":1,"k":"a"})", R"({"k":"b"})"},
          {R"({"k":"c"})", "{}"}},
         {R"({"oneOf":[{"type":"string","maxLength":3},{"type":"string","minLength":4,"maxLength":5}]})",
          {R"("abc")", R"("abcd")"},
          {R"("abcdef")"}},
         {R"({"oneOf":[{"type":"array","maxItems":0},{"type":"array","minItems":1,"items":{"type":"null"}}]})",
          {"[]", "[null]"},
          {"[1]"}},
         {R"({"oneOf":[{"type":"object","properties":{"a":false,"b":{"type":"null"}}},{"type":"object","properties":
            {"a":{"type":"null"}},"required":["a"]}]})",
          {R"({"b":null})", R"({"a":null})", "{}"},
          {R"({"a":1})"}},
         {R"({"allOf":[{"allOf":[{"type":"integer"},{"minimum":2}]},{"allOf":[{"maximum":5}]}]})",
          {"2", "5"},
          {"1", "6"}}});
  for (const char* schema :
       {R"({"oneOf":[{"type":"string","maxLength":3},{"type":"string","minLength":3}]})",
        R"({"oneOf":[{"allOf":[{"type":"integer"}]},{"allOf":[{"type":"number"}]}]})",
        R"({"oneOf":[{"maxLength":3},{"minItems":4}]})",
        R"({"oneOf":[{"type":["string","array"],"maxLength":3},{"type":["string","array"],"minLength":4}]})"}) {
    EXPECT_NE(refusal(Kind::kJsonSchema, schema).find("may be valid under"), std::string::npos) << schema;
  }
}

TEST(JsonSchema, what_would_take_too_long_or_too_much_is_refused_in_bounded_time) {
  const std::string numbers = "[" + many(80'000, "#") + "]", names = "[" + many(60'000, "\"#\"") + "]";
  const std::vector<std::pair<Kind, std::string>> sources = {
      {Kind::kJsonSchema, R"({"enum":)" + numbers + "}"},
      {Kind::kJsonSchema, R"({"allOf":[{"enum":)" + numbers + R"(},{"enum":[-1,)" + numbers.substr(1) + "}]}"},
      {Kind::kJsonSchema, R"({"allOf":[{"required":)" + names + R"(},{"required":["a",)" + names.substr(1) + "}]}"},
      {Kind::kJsonSchema, R"({"oneOf":[{"enum":)" + numbers + R"(},{"enum":[-1,)" + numbers.substr(1) + "}]}"},
      {Kind::kJsonSchema, repeated(100'000, R"({"items":)") + "true" + repeated(100'000, "}")},
      {Kind::kJsonSchema, R"({"oneOf":[)" + many(20'000, R"({"const":#})") + "]}"},
      {Kind::kJsonSchema, R"({"type":"string","pattern":"(a{1000}){1000}"})"},
      {Kind::kJsonSchema, R"({"type":"object","properties":{"a":{"$ref":"#"}},"required":["a"]})"},
      {Kind::kRegex, "(a{1000}){1000}"},
      {Kind::kRegex, "(((a?){100}){100}){100}"},
      {Kind::kRegex, "([]{100000}){100000}"},
      {Kind::kRegex, "(a|b)*a(a|b){30}"},
      {Kind::kRegex, repeated(100'000, "(") + repeated(100'000, ")")},
      {Kind::kGrammar, "root ::= (\"a\"{1000}){1000}"},
      {Kind::kGrammar, "root ::= " + repeated(100'000, "(") + "\"a\"" + repeated(100'000, ")")},
  };
  for (const auto& [kind, source] : sources) {
    SCOPED_TRACE(source.substr(0, 60));
    const auto start = std::chrono::steady_clock::now();
    EXPECT_NE(refusal(kind, source), "");
    // The limit is one second; the rest is for slow and busy machines.
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(10));
  }
}

}  // namespace
}  // namespace idefics::grammar
