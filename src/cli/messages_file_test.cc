#include "cli/messages_file.h"

#include <gtest/gtest.h>

#include "base/files.h"
#include "base/json.h"

namespace idefics::cli {
namespace {

const std::filesystem::path kSamples = std::filesystem::path(IDEFICS_SOURCE_DIR) / "models/tiny-cards/samples";

Conversation parse(const std::string& text) { return parse_messages(text, "m.json", kSamples); }

std::string error_of(const std::string& text) {
  try {
    parse(text);
  } catch (const Error& e) {
    return std::string(code_name(e.code())) + " " + e.what();
  }
  return "";
}

TEST(Messages, content_is_a_string_or_parts) {
  const Conversation c = parse(R"([
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "image", "path": "01.png"}, {"type": "text", "text": "Hi <image>"}]},
    {"role": "assistant", "content": []}
  ])");
  ASSERT_EQ(c.messages.size(), 3u);
  EXPECT_EQ(c.messages[0].role, "system");
  EXPECT_EQ(c.messages[0].content.at(0).text, "Be brief.");
  EXPECT_EQ(c.messages[1].content.at(0).image, read_file(kSamples / "01.png", 1 << 20));
  EXPECT_EQ(c.messages[1].content.at(1).text, "Hi <image>");
  EXPECT_TRUE(c.messages[2].content.empty());
  EXPECT_EQ(c.pictures, std::vector<std::string>{(kSamples / "01.png").string()});
}

TEST(Messages, absolute_paths_stay) {
  const std::string path = std::filesystem::absolute(kSamples / "02.png").string();
  const Conversation c = parse_messages("[{\"role\": \"user\", \"content\": [{\"type\": \"image\", \"path\": " +
                                            json::serialize(json::string(path)) + "}]}]",
                                        "m.json", "/nowhere");
  EXPECT_EQ(c.pictures, std::vector<std::string>{path});
}

TEST(Messages, what_is_written_reads_back_from_any_folder) {
  const Conversation c = parse(R"([{"role": "user", "content": [{"type": "text", "text": "Compare \"é\""},
    {"type": "image", "path": "01.png"}, {"type": "image", "path": "02.png"}]}, {"role": "assistant", "content": "no\n"}])");
  const Conversation again = parse_messages(format_messages(c), "saved.json", "/nowhere");
  ASSERT_EQ(again.messages.size(), 2u);
  EXPECT_EQ(again.messages[0].content.at(0).text, "Compare \"é\"");
  EXPECT_EQ(again.messages[0].content.at(2).image, c.messages[0].content.at(2).image);
  EXPECT_EQ(again.messages[1].content.at(0).text, "no\n");
}

TEST(Messages, errors_name_the_message_the_part_and_the_key) {
  EXPECT_EQ(error_of("{}").find("invalid_value m.json: is an object of 0 keys, wanted an array of messages"), 0u);
  EXPECT_NE(error_of("[3]").find("m.json: message 1"), std::string::npos);
  EXPECT_EQ(error_of(R"([{"role": "user", "content": "x"}, {"role": 3, "content": "x"}])"),
            "invalid_value m.json: message 2: role is 3, wanted a string");
  EXPECT_EQ(error_of(R"([{"role": "user", "content": {}}])"),
            "invalid_value m.json: message 1: content is missing, wanted a string or an array");
  EXPECT_EQ(error_of(R"([{"role": "user", "content": [{"type": "text"}]}])"),
            "invalid_value m.json: message 1: part 1: text is missing, wanted a string");
  EXPECT_EQ(error_of(R"([{"role": "user", "content": ["x"]}])").find("invalid_value m.json: message 1: part 1"), 0u);
  EXPECT_EQ(error_of(R"([{"role": "user", "content": [{"type": "image", "path": "none.png"}]}])").find("io "), 0u);
  EXPECT_EQ(
      error_of(R"([{"role": "user", "content": [{"type": "image", "path": "expected.json"}]}])").find("image_invalid "),
      0u);
}

}  // namespace
}  // namespace idefics::cli
