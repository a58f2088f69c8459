#include "server/openai/log.h"

#include <gtest/gtest.h>

#include "base/json.h"

namespace idefics::openai {
namespace {

const std::string kEvil = "a\r\nb\x1b[31m \"c\"\\ \xff\t";

TEST(Log, values_are_escaped_in_text) {
  EXPECT_EQ(Log::line(LogFormat::kText, "request", {{"path", "/v1/models"}, {"status", "200"}}),
            "request path=/v1/models status=200");
  const std::string line = Log::line(LogFormat::kText, "request", {{"path", kEvil}, {"empty", ""}});
  EXPECT_EQ(line, "request path=\"a\\r\\nb\\u001b[31m \\\"c\\\"\\\\ \xef\xbf\xbd\\t\" empty=\"\"");
}

TEST(Log, a_json_line_is_one_object) {
  const std::string line = "{" + Log::line(LogFormat::kJson, "request", {{"path", kEvil}}) + "}";
  EXPECT_EQ(line.find('\n'), std::string::npos);
  const json::value value = parse_json(line, "line");
  EXPECT_EQ(value.at("event"), "request");
  EXPECT_EQ(value.at("path"), "a\r\nb\x1b[31m \"c\"\\ \xef\xbf\xbd\t");
}

TEST(Log, numbers_are_numbers_by_the_name_of_their_field) {
  EXPECT_EQ(
      Log::line(LogFormat::kJson, "request", {{"id", "12"}, {"status", "200"}, {"ms", "1.5"}, {"weights_mib", "3"}}),
      R"("event":"request","id":"12","status":200,"ms":1.5,"weights_mib":3)");
}

}  // namespace
}  // namespace idefics::openai
