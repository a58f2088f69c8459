#include "server/openai/json_body.h"

#include <gtest/gtest.h>

#include <chrono>

#include "server/openai/api_error.h"

namespace idefics::openai {
namespace {

bool is_refused(const std::string& text) {
  try {
    parse_body(text);
    return false;
  } catch (const ApiError& e) {
    EXPECT_EQ(e.status, 400);
    EXPECT_EQ(e.code, "invalid_json");
    EXPECT_LE(json::serialize(to_json(e)).size(), 4096u);
    return true;
  }
}

std::string repeated(const std::string& text, int times) {
  std::string out;
  for (int i = 0; i < times; ++i) out += text;
  return out;
}

TEST(JsonBody, what_is_not_json_is_refused) {
  const std::vector<std::string> cases = {
      "",
      " ",
      "{",
      "}",
      "[",
      "]",
      "{]",
      "[}",
      "[1,]",
      "[,1]",
      "[1,,2]",
      "[1 2]",
      "{\"a\"}",
      "{\"a\":}",
      "{\"a\":1,}",
      "{,}",
      "{a:1}",
      "{'a':1}",
      "{1:1}",
      "nul",
      "nulll",
      "True",
      "NaN",
      "Infinity",
      "-Infinity",
      "undefined",
      "01",
      "-",
      "+1",
      "1.",
      ".5",
      "1e",
      "1e+",
      "0x10",
      "1_000",
      "--1",
      "\"",
      "\"a",
      "\"\\x\"",
      "\"\\u12\"",
      "\"\\ud800\"",
      "\"\\udc00\"",
      "\"\\ud800\\u0041\"",
      "\"a\nb\"",
      "\"a\tb\"",
      std::string("\"a\0b\"", 5),
      "{} {}",
      "{} x",
      "1 1",
      "[1] ,",
      "\xEF\xBB\xBF{}",
      "/* c */ {}",
      "{} // c",
      "[1]/**/",
      "\"\xff\"",
      "\"\xc0\xaf\"",
      "\"\xed\xa0\x80\"",
      "\"\xf5\x80\x80\x80\"",
      "\"\xe2\x82\"",
      std::string("{}\0", 3),
      "{\"a\":1,\"a\":2}",
      "[{\"b\":{\"x\":1,\"y\":2,\"x\":3}}]",
      "{\"\\u0061\":1,\"a\":2}",
      "1e999",
      "-1e999",
      "[1e400]",
      "{\"a\":1e309}",
  };
  for (const std::string& text : cases) EXPECT_TRUE(is_refused(text)) << text;
}

TEST(JsonBody, what_is_cut_short_or_has_a_byte_too_many_is_refused) {
  const std::string good = R"({"messages":[{"role":"user","content":[{"type":"text","text":"\u00e9\n"}]}],"n":1.5e1})";
  ASSERT_FALSE(is_refused(good));
  std::vector<std::string> cases;
  for (size_t i = 0; i < good.size(); ++i) cases.push_back(good.substr(0, i));
  for (int b = 0; b < 256; ++b) {
    const char c = static_cast<char>(b);
    const std::string byte(1, c);
    if (b < 32) cases.push_back("\"a" + byte + "b\"");
    if (b < 128 && (b == 0 || std::string(" \t\r\n").find(c) == std::string::npos)) cases.push_back(good + byte);
    if (b < 128 && (b == 0 || std::string("\"\\/bfnrtu").find(c) == std::string::npos))
      cases.push_back("\"\\" + byte + "\"");
    if (b >= 128) cases.push_back("\"" + byte + "\"");
    const bool hex = std::string("0123456789abcdefABCDEF").find(c) != std::string::npos;
    if (!hex) cases.push_back("\"\\u00" + byte + "1\"");
  }
  EXPECT_GE(cases.size(), 300u);
  for (const std::string& text : cases) {
    EXPECT_TRUE(is_refused(text)) << text;
    EXPECT_FALSE(is_refused(good)) << "beside it";
  }
}

TEST(JsonBody, what_is_json_is_taken) {
  const std::vector<std::string> cases = {
      "{}",
      " {} \n",
      "[]",
      "1",
      "-0",
      "0",
      "-0.0",
      "1e308",
      "1E-400",
      "123456789012345678901234567890",
      "\"\\u0000\"",
      "\"\\ud83d\\ude00\"",
      "\"\xf0\x9f\x98\x80\"",
      "{\"\":1}",
      "{\"a\":{\"a\":1},\"b\":{\"a\":1}}",
      "[[[[1]]]]",
      "\"\\/\\b\\f\\n\\r\\t\\\"\\\\\"",
  };
  for (const std::string& text : cases) EXPECT_FALSE(is_refused(text)) << text;
  EXPECT_EQ(parse_body(R"({"a":[1,-2,3.5,"x",null,true]})").at("a"), (json::array{1, -2, 3.5, "x", nullptr, true}));
}

TEST(JsonBody, depth_values_and_keys_have_limits) {
  EXPECT_FALSE(is_refused(repeated("[", 64) + repeated("]", 64)));
  EXPECT_TRUE(is_refused(repeated("[", 65) + repeated("]", 65)));
  EXPECT_TRUE(is_refused(repeated("[", 100'000)));
  EXPECT_TRUE(is_refused(repeated("{\"a\":", 100'000)));
  EXPECT_TRUE(is_refused("[" + repeated("1,", 1'000'000) + "1]"));
  std::string keys = "{";
  for (int i = 0; i < 1'000'000; ++i) keys += "\"" + std::to_string(i) + "\":1,";
  EXPECT_TRUE(is_refused(keys + "\"x\":1}"));
}

TEST(JsonBody, a_large_text_is_read_in_linear_time) {
  const auto time = [](size_t megabytes) {
    const std::string text = R"({"url":")" + std::string(megabytes << 20, 'A') + "\"}";
    const auto start = std::chrono::steady_clock::now();
    EXPECT_EQ(parse_body(text).at("url").as_string().size(), megabytes << 20);
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  EXPECT_LT(time(30), 3.0) << "30 MB, even on a busy machine";
}

}  // namespace
}  // namespace idefics::openai
