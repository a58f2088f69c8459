#include "processor/expansion.h"

#include <gtest/gtest.h>

namespace idefics {
namespace {

constexpr const char* kAround = "<fake_token_around_image>";

TEST(Expansion, a_block_lists_tiles_row_by_row_and_the_overview_last) {
  const std::string f = kAround;
  EXPECT_EQ(image_block({0, 0}, 2), f + "<global-img><image><image>" + f);
  EXPECT_EQ(image_block({2, 1}, 1),
            f + "<row_1_col_1><image>\n" + f + "<row_2_col_1><image>\n\n" + f + "<global-img><image>" + f);
}

TEST(Expansion, what_a_user_wrote_is_no_place_for_a_picture) {
  const std::string text = "<image>a<image>b<image>";
  const std::vector<TextRange> user = {{7, 16}};
  EXPECT_EQ(find_placeholders(text, user), (std::vector<size_t>{0, 16}));
  EXPECT_EQ(find_placeholders(text, std::vector<TextRange>{{20, 21}}),
            (std::vector<size_t>{0, 8}));  // reaches into a user's text
  EXPECT_EQ(find_placeholders("<image", {}), std::vector<size_t>{});
}

TEST(Expansion, ranges_move_with_the_text) {
  const std::string text = "u<image>user<image>v";
  const std::vector<TextRange> user = {{0, 1}, {8, 12}, {19, 20}};
  const auto places = find_placeholders(text, user);
  ASSERT_EQ(places.size(), 2u);
  const ExpandedText out = expand_placeholders(text, user, places, std::vector<Grid>{{0, 0}, {1, 1}}, 3);
  ASSERT_EQ(out.untrusted.size(), 3u);
  const auto piece = [&](size_t i) {
    return out.text.substr(out.untrusted[i].begin, out.untrusted[i].end - out.untrusted[i].begin);
  };
  EXPECT_EQ(piece(0), "u");
  EXPECT_EQ(piece(1), "user");
  EXPECT_EQ(piece(2), "v");
  EXPECT_EQ(out.text, "u" + image_block({0, 0}, 3) + "user" + image_block({1, 1}, 3) + "v");
}

}  // namespace
}  // namespace idefics
