// How a picture has to be turned: where cameras say so, and the turning.
//
// One entry of one table is all that is needed of EXIF, so it is read here. libexif copies the data of every entry, and
// 5,000 entries that share 60 KB make 300 MB of a 64 KB segment.
#include <algorithm>

#include "image/formats.h"

namespace idefics {
namespace {

constexpr std::string_view kExifPrefix("Exif\0\0", 6);
constexpr uint32_t kOrientationTag = 0x112;

// EXIF data are laid out as a TIFF file: numbers of either byte order, offsets from the start. Reading past the end
// gives nothing.
class ExifReader {
 public:
  explicit ExifReader(Bytes bytes) : bytes_(bytes), little_(starts_with(bytes, "II")) {}
  std::optional<uint32_t> u16(size_t at) const { return number(at, 2); }
  std::optional<uint32_t> u32(size_t at) const { return number(at, 4); }

 private:
  std::optional<uint32_t> number(size_t at, size_t size) const {
    if (at > bytes_.size() || bytes_.size() - at < size) return std::nullopt;
    uint32_t value = 0;
    for (size_t i = 0; i < size; ++i)
      value = value << 8 | static_cast<uint32_t>(bytes_[at + (little_ ? size - 1 - i : i)]);
    return value;
  }
  Bytes bytes_;
  bool little_;
};

}  // namespace

std::optional<int> exif_orientation(Bytes exif) {
  while (starts_with(exif, kExifPrefix)) exif = exif.subspan(kExifPrefix.size());
  if (!starts_with(exif, "II") && !starts_with(exif, "MM")) return std::nullopt;
  const ExifReader reader(exif);
  const std::optional<uint32_t> table = reader.u32(4);
  const std::optional<uint32_t> count = table ? reader.u16(*table) : std::nullopt;
  std::optional<int> orientation;
  for (uint32_t i = 0; count && i < *count; ++i) {
    // An entry: tag, type, number of values, value. Of several the last one counts.
    const size_t entry = size_t{*table} + 2 + size_t{12} * i;
    if (!reader.u32(entry + 8)) break;
    if (reader.u16(entry) != kOrientationTag || reader.u32(entry + 4) != 1u) continue;
    constexpr uint32_t kShort = 3, kLong = 4;
    const std::optional<uint32_t> type = reader.u16(entry + 2);
    if (type == kShort) orientation = static_cast<int>(*reader.u16(entry + 8));
    if (type == kLong) orientation = static_cast<int>(std::min<uint32_t>(*reader.u32(entry + 8), INT32_MAX));
  }
  return orientation;
}

std::optional<int> xmp_orientation(Bytes xmp) {
  const std::string_view text(reinterpret_cast<const char*>(xmp.data()), xmp.size());
  constexpr std::string_view kName = "tiff:Orientation";
  for (size_t at = text.find(kName); at != text.npos; at = text.find(kName, at + 1)) {
    std::string_view rest = text.substr(at + kName.size());
    if (rest.starts_with("=\"")) {
      rest.remove_prefix(2);
    } else if (rest.starts_with('>')) {
      rest.remove_prefix(1);
    } else {
      continue;
    }
    if (!rest.empty() && rest[0] >= '0' && rest[0] <= '9') return rest[0] - '0';
  }
  return std::nullopt;
}

int find_orientation(Bytes exif, Bytes xmp) {
  if (!exif.empty()) {
    if (const std::optional<int> orientation = exif_orientation(exif)) return *orientation;
  }
  return xmp_orientation(xmp).value_or(1);
}

Image orient(Image image, int orientation) {
  if (orientation < 2 || orientation > 8) return image;
  const bool swap = orientation >= 5;
  // Output (x, y) is input (y, x) if swapped, and then mirrored in the input's own axes.
  const bool mirror_x = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
  const bool mirror_y = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
  Image out = swap ? new_image(image.height, image.width) : new_image(image.width, image.height);
  const ptrdiff_t step_x = 3, step_y = ptrdiff_t{3} * image.width;
  const uint8_t* start =
      image.rgb.data() + (mirror_x ? (image.width - 1) * step_x : 0) + (mirror_y ? (image.height - 1) * step_y : 0);
  const ptrdiff_t along_x = mirror_x ? -step_x : step_x, along_y = mirror_y ? -step_y : step_y;
  const ptrdiff_t inner = swap ? along_y : along_x, outer = swap ? along_x : along_y;
  uint8_t* to = out.rgb.data();
  for (int y = 0; y < out.height; ++y) {
    for (int x = 0; x < out.width; ++x, to += 3) std::copy_n(start + y * outer + x * inner, 3, to);
  }
  return out;
}

}  // namespace idefics
