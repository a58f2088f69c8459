// Places of pictures in a prompt's text become blocks of control tokens.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/text_range.h"

namespace idefics {

// Rows and columns of tiles of one picture; 0 x 0: one tile, not split.
struct Grid {
  int rows = 0, cols = 0;
};

// The text that stands for one picture, each tile with `image_seq_len` times <image>:
//   not split  <fake_token_around_image><global-img><image>...<fake_token_around_image>
//   split      row by row <fake_token_around_image><row_R_col_C><image>... with a newline after each row, one more
//              newline, and then the overview as if not split
std::string image_block(const Grid& grid, int image_seq_len);

// Where "<image>" stands for a picture: every occurrence in `text` but those that lie in (or reach into) a range that a
// user wrote. Byte positions, ascending.
std::vector<size_t> find_placeholders(std::string_view text, std::span<const TextRange> untrusted);

struct ExpandedText {
  std::string text;
  std::vector<TextRange> untrusted;  // the same ranges, moved
};
// Replaces the placeholders by the blocks of `grids`, one each, in order.   REQUIRES: as many grids as placeholders.
ExpandedText expand_placeholders(std::string_view text, std::span<const TextRange> untrusted,
                                 std::span<const size_t> placeholders, std::span<const Grid> grids, int image_seq_len);

}  // namespace idefics
