#include "processor/expansion.h"

#include <fmt/format.h>

#include "base/check.h"

namespace idefics {

namespace {

constexpr std::string_view kImage = "<image>";
constexpr std::string_view kAround = "<fake_token_around_image>";
constexpr std::string_view kGlobal = "<global-img>";

void append_images(std::string& out, int count) {
  for (int i = 0; i < count; ++i) out += kImage;
}

}  // namespace

std::string image_block(const Grid& grid, int image_seq_len) {
  std::string out;
  for (int r = 1; r <= grid.rows; ++r) {
    for (int c = 1; c <= grid.cols; ++c) {
      out += fmt::format("{}<row_{}_col_{}>", kAround, r, c);
      append_images(out, image_seq_len);
    }
    out += '\n';
  }
  if (grid.rows > 0) out += '\n';
  out += kAround;
  out += kGlobal;
  append_images(out, image_seq_len);
  out += kAround;
  return out;
}

std::vector<size_t> find_placeholders(std::string_view text, std::span<const TextRange> untrusted) {
  std::vector<size_t> places;
  size_t range = 0;
  for (size_t at = text.find(kImage); at != std::string_view::npos; at = text.find(kImage, at)) {
    while (range < untrusted.size() && untrusted[range].end <= at) ++range;
    const bool written_by_user = range < untrusted.size() && untrusted[range].begin < at + kImage.size();
    if (!written_by_user) places.push_back(at);
    at += written_by_user ? 1 : kImage.size();
  }
  return places;
}

ExpandedText expand_placeholders(std::string_view text, std::span<const TextRange> untrusted,
                                 std::span<const size_t> placeholders, std::span<const Grid> grids, int image_seq_len) {
  IDEFICS_CHECK(placeholders.size() == grids.size());
  ExpandedText out;
  size_t copied = 0, range = 0;
  const auto move_ranges_until = [&](size_t end) {
    for (; range < untrusted.size() && untrusted[range].begin < end; ++range) {
      const size_t shift = out.text.size() - copied;  // taken before the text up to `end` is appended
      out.untrusted.push_back({untrusted[range].begin + shift, untrusted[range].end + shift});
    }
  };
  for (size_t i = 0; i < placeholders.size(); ++i) {
    move_ranges_until(placeholders[i]);
    out.text += text.substr(copied, placeholders[i] - copied);
    out.text += image_block(grids[i], image_seq_len);
    copied = placeholders[i] + kImage.size();
  }
  move_ranges_until(text.size());
  out.text += text.substr(copied);
  return out;
}

}  // namespace idefics
