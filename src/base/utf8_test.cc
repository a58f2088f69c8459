#include "base/utf8.h"

#include <gtest/gtest.h>

namespace idefics {
namespace {

TEST(Utf8, every_code_point_survives_a_round_trip) {
  for (char32_t c = 0; c < 0x110000; ++c) {
    if (c >= 0xd800 && c < 0xe000) continue;
    std::string text;
    append_utf8(text, c);
    const CodePoint back = decode_utf8(text, 0);
    ASSERT_TRUE(back.valid && back.value == c && static_cast<size_t>(back.length) == text.size())
        << static_cast<uint32_t>(c);
  }
}

TEST(Utf8, ill_formed_subparts_become_one_replacement_each) {
  const std::string fffd = "\xef\xbf\xbd";
  EXPECT_EQ(repair_utf8("a\x80"
                        "b"),
            "a" + fffd + "b");
  EXPECT_EQ(repair_utf8("\xc0\xaf"), fffd + fffd);             // overlong: two bytes, each alone
  EXPECT_EQ(repair_utf8("\xed\xa0\x80"), fffd + fffd + fffd);  // surrogate
  EXPECT_EQ(repair_utf8("\xf0\x9f\x91"), fffd);                // cut emoji: one subpart
  EXPECT_EQ(repair_utf8("\xf0\x9f\x91x"), fffd + "x");
  EXPECT_EQ(repair_utf8("\xf4\x90\x80\x80"), fffd + fffd + fffd + fffd);  // above U+10FFFF
  EXPECT_FALSE(is_utf8("\xed\xa0\x80"));
  EXPECT_TRUE(is_utf8("na\xc3\xafve \xf0\x9f\x91\x8d"));
}

TEST(Utf8, an_incomplete_tail_is_what_more_bytes_could_complete) {
  EXPECT_EQ(incomplete_utf8_tail("ab"), 0u);
  EXPECT_EQ(incomplete_utf8_tail("ab\xc3"), 1u);
  EXPECT_EQ(incomplete_utf8_tail("\xf0\x9f\x91"), 3u);
  EXPECT_EQ(incomplete_utf8_tail("\xf0\x9f\x91\x8d"), 0u);
  EXPECT_EQ(incomplete_utf8_tail("\x80\x80"), 0u);
  EXPECT_EQ(incomplete_utf8_tail("\xf5\x80"), 0u);
}

}  // namespace
}  // namespace idefics
