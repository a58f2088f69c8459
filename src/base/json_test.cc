#include "base/json.h"

#include <gtest/gtest.h>

namespace idefics {
namespace {

std::string error_of(auto&& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

TEST(Json, a_syntax_error_names_its_place) {
  EXPECT_EQ(error_of([] { parse_json("{\n \"a\": tru }", "f.json"); }).substr(0, 24), "f.json: not valid JSON (");
  EXPECT_NE(error_of([] { parse_json("{\n \"a\": tru }", "f.json"); }).find("line 2"), std::string::npos);
  EXPECT_NE(error_of([] { parse_json("{} x", "f.json"); }), "");
  EXPECT_NE(error_of([] { parse_json("", "f.json"); }), "");
}

TEST(Json, depth_is_limited) {
  EXPECT_NE(error_of([] { parse_json(std::string(100, '[') + std::string(100, ']'), "f"); }), "");
  EXPECT_EQ(error_of([] { parse_json(std::string(60, '[') + std::string(60, ']'), "f"); }), "");
}

TEST(Json, getters_refuse_other_types_and_ranges_by_key) {
  const json::value value =
      parse_json(R"({"i": 3, "f": 2.5, "s": "x", "n": null, "big": 1e999, "o": {"k": -1}})", "c.json");
  const JsonObject o = JsonObject::of(value, "c.json");
  EXPECT_EQ(o.find_int("i", 0, 5), 3);
  EXPECT_EQ(o.find_int("n", 0, 5), std::nullopt);
  EXPECT_EQ(o.find_int("absent", 0, 5), std::nullopt);
  EXPECT_EQ(o.find_number("i"), 3.0);
  EXPECT_EQ(error_of([&] { o.find_int("i", 4, 5); }), "c.json: i is 3, wanted a whole number from 4 to 5");
  EXPECT_EQ(error_of([&] { o.find_int("f", 0, 5); }), "c.json: f is 2.5E0, wanted a whole number from 0 to 5");
  EXPECT_NE(error_of([&] { o.find_bool("s"); }), "");
  EXPECT_NE(error_of([&] { o.find_number("big"); }), "");
  EXPECT_EQ(error_of([&] { o.find_object("o")->find_int("k", 0, 9); }),
            "c.json: o: k is -1, wanted a whole number from 0 to 9");
}

}  // namespace
}  // namespace idefics
