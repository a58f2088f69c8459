#include <gtest/gtest.h>

#include "image/formats.h"

namespace idefics {
namespace {

Bytes bytes_of(std::string_view text) { return std::as_bytes(std::span(text)); }

// EXIF data with one table of `entries` (12 bytes each).
std::string exif(const std::string& entries) {
  std::string data("II*\0\x08\0\0\0", 8);
  data += static_cast<char>(entries.size() / 12);
  data += '\0';
  return data + entries + std::string(4, '\0');
}
std::string entry(char tag_low, char type, char count, char value) {
  std::string e{tag_low, 1, type, 0, count, 0, 0, 0, value, 0, 0, 0};
  return e;
}

// Rows of one letter a pixel.
std::string turned(const std::string& rows, int width, int orientation) {
  Image image{width, static_cast<int>(rows.size()) / width, {}};
  for (const char c : rows) image.rgb.insert(image.rgb.end(), 3, static_cast<uint8_t>(c));
  const Image out = orient(std::move(image), orientation);
  std::string text;
  for (int y = 0; y < out.height; ++y) {
    if (y > 0) text += '/';
    for (int x = 0; x < out.width; ++x)
      text += static_cast<char>(out.rgb[static_cast<size_t>(3 * (y * out.width + x))]);
  }
  return text;
}

TEST(Orient, all_eight) {
  const std::string rows = "abcdef";  // abc over def
  EXPECT_EQ(turned(rows, 3, 1), "abc/def");
  EXPECT_EQ(turned(rows, 3, 2), "cba/fed");
  EXPECT_EQ(turned(rows, 3, 3), "fed/cba");
  EXPECT_EQ(turned(rows, 3, 4), "def/abc");
  EXPECT_EQ(turned(rows, 3, 5), "ad/be/cf");
  EXPECT_EQ(turned(rows, 3, 6), "da/eb/fc");
  EXPECT_EQ(turned(rows, 3, 7), "fc/eb/da");
  EXPECT_EQ(turned(rows, 3, 8), "cf/be/ad");
  for (const int other : {-1, 0, 9, 100}) EXPECT_EQ(turned(rows, 3, other), "abc/def");
}

TEST(ExifOrientation, reads_both_byte_orders_and_both_widths) {
  EXPECT_EQ(exif_orientation(bytes_of(exif(entry(0x12, 3, 1, 6)))), 6);
  EXPECT_EQ(exif_orientation(bytes_of(exif(entry(0x12, 4, 1, 8)))), 8);
  EXPECT_EQ(exif_orientation(bytes_of(std::string("Exif\0\0", 6) + exif(entry(0x12, 3, 1, 5)))), 5);
  const std::string big("MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x07\0\0\0\0\0\0", 26);
  EXPECT_EQ(exif_orientation(bytes_of(big)), 7);
}

TEST(ExifOrientation, other_types_counts_and_tags_say_nothing) {
  EXPECT_EQ(exif_orientation(bytes_of(exif(entry(0x12, 1, 1, 6)))), std::nullopt);
  EXPECT_EQ(exif_orientation(bytes_of(exif(entry(0x12, 3, 2, 6)))), std::nullopt);
  EXPECT_EQ(exif_orientation(bytes_of(exif(entry(0x13, 3, 1, 6)))), std::nullopt);
  EXPECT_EQ(exif_orientation({}), std::nullopt);
}

TEST(ExifOrientation, of_several_the_last_one_counts) {
  EXPECT_EQ(exif_orientation(bytes_of(exif(entry(0x12, 3, 1, 6) + entry(0x13, 3, 1, 2) + entry(0x12, 3, 1, 3)))), 3);
}

TEST(ExifOrientation, data_cut_anywhere_are_read_as_far_as_they_go) {
  const std::string data = exif(entry(0x13, 3, 1, 1) + entry(0x12, 3, 1, 6));
  for (size_t size = 0; size <= data.size(); ++size) {
    // A copy of exactly that size, so that a sanitizer sees a read past it.
    const std::vector<char> cut(data.begin(), data.begin() + static_cast<ptrdiff_t>(size));
    const std::optional<int> orientation = exif_orientation(std::as_bytes(std::span(cut)));
    EXPECT_EQ(orientation, size >= 34 ? std::optional(6) : std::nullopt) << size;
  }
  std::string far = data;
  for (size_t i = 4; i < 8; ++i) far[i] = '\xff';
  EXPECT_EQ(exif_orientation(bytes_of(far)), std::nullopt);
}

TEST(XmpOrientation, as_attribute_or_element) {
  EXPECT_EQ(xmp_orientation(bytes_of("<a tiff:Orientation=\"6\"/>")), 6);
  EXPECT_EQ(xmp_orientation(bytes_of("<tiff:Orientation>3</tiff:Orientation>")), 3);
  EXPECT_EQ(xmp_orientation(bytes_of("tiff:Orientation tiff:Orientation=\"")), std::nullopt);
  EXPECT_EQ(xmp_orientation(bytes_of("tiff:Orientation=\"x\" tiff:Orientation>8")), 8);
  EXPECT_EQ(xmp_orientation({}), std::nullopt);
}

TEST(FindOrientation, exif_comes_before_xmp) {
  const std::string six = exif(entry(0x12, 3, 1, 6)), none = exif(entry(0x13, 3, 1, 6));
  const Bytes xmp = bytes_of("tiff:Orientation>8");
  EXPECT_EQ(find_orientation(bytes_of(six), xmp), 6);
  EXPECT_EQ(find_orientation(bytes_of(none), xmp), 8);
  EXPECT_EQ(find_orientation(bytes_of(none), {}), 1);
  EXPECT_EQ(find_orientation({}, {}), 1);
}

}  // namespace
}  // namespace idefics
