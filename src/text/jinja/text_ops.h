// Python's str methods on texts that carry taint. Positions and ranges are bytes unless they say code points.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "text/jinja/value.h"

namespace idefics::jinja {

// Where `needle` first (last) occurs, or npos. Linear in both lengths.
size_t find(Budget& budget, std::string_view text, std::string_view needle, size_t from = 0);
size_t find_last(Budget& budget, std::string_view text, std::string_view needle);

// a + b. A plain text that meets markup is escaped, as markupsafe does.
Value add_texts(Budget& budget, const Value& a, const Value& b);
// markupsafe.escape: & < > ' " as entities.
Value escape_markup(Budget& budget, const Value& value);
// `value` as a text to be put into `into`: escaped when `into` is markup and `value` is not.
Value text_for(Budget& budget, const Text& into, const Value& value);

// Without the characters of `chars` (nothing: blanks) at the ends.
Value strip(Budget& budget, const Text& text, const std::optional<std::string_view>& chars, bool left, bool right);

Value upper(Budget& budget, const Text& text);
Value lower(Budget& budget, const Text& text);
Value capitalize(Budget& budget, const Text& text);
Value title(Budget& budget, const Text& text);
Value swap_case(Budget& budget, const Text& text);

// The first `count` occurrences (negative: all) replaced.
Value replace(Budget& budget, const Text& text, const Text& old, const Text& with, int64_t count);
// Pieces between separators; at most `most` cuts (negative: all). Nothing as separator: runs of blanks.
std::vector<Value> split(Budget& budget, const Text& text, const std::optional<std::string_view>& separator,
                         int64_t most);
std::vector<Value> split_from_right(Budget& budget, const Text& text, const std::optional<std::string_view>& separator,
                                    int64_t most);
std::vector<Value> split_lines(Budget& budget, const Text& text, bool keep_ends);

// The code points [from, to) with bounds as Python clamps them.
Value slice_text(Budget& budget, const Text& text, int64_t from, int64_t to);
// What padding is made of.
struct Fill {
  std::string_view text = " ";
  bool tainted = false;
};
// `text` with `left` and `right` copies of `fill` beside it.
Value pad(Budget& budget, const Text& text, int64_t left, int64_t right, const Fill& fill = {});
Value center(Budget& budget, const Text& text, int64_t width, const Fill& fill = {});

}  // namespace idefics::jinja
