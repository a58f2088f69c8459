#include "cli/terminal.h"

#include <gtest/gtest.h>

namespace idefics::cli {
namespace {

TEST(Printable, keeps_text_and_takes_control_characters_out) {
  EXPECT_EQ(printable("a\tb\nc é 漢 😀"), "a\tb\nc é 漢 😀");
  EXPECT_EQ(printable("\x1b[31mred\x1b[0m"), "[31mred[0m");
  EXPECT_EQ(printable("\x1b]0;title\x07x\r\b\x7f"), "]0;titlex");
  EXPECT_EQ(printable(std::string_view("a\0b", 3)), "ab");
}

TEST(Printable, knows_the_8_bit_controls_too) {
  EXPECT_EQ(printable("\xc2\x9b"
                      "31m"),
            "31m");                              // U+009B, a control sequence introducer
  EXPECT_EQ(printable("\xc2\xa0"), "\xc2\xa0");  // the no-break space beside them
  EXPECT_EQ(printable("\x9b"), "\xef\xbf\xbd");  // no UTF-8 at all
}

TEST(OneLine, shows_what_would_break_the_line) {
  EXPECT_EQ(one_line("a\nb\x1b[1m\r"), "a\\nb\\x1b[1m\\x0d");
  EXPECT_EQ(one_line("päth/漢.png"), "päth/漢.png");
  EXPECT_EQ(one_line("\xc2\x85"), "\\x85");
}

}  // namespace
}  // namespace idefics::cli
