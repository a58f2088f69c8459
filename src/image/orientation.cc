// How a picture has to be turned: where cameras say so, and the turning.
#include <libexif/exif-data.h>

#include <algorithm>
#include <memory>

#include "image/formats.h"

namespace idefics {
namespace {

constexpr std::string_view kExifPrefix("Exif\0\0", 6);

struct UnrefData {
  void operator()(ExifData* data) const { exif_data_unref(data); }
};

}  // namespace

std::optional<int> exif_orientation(Bytes exif) {
  while (starts_with(exif, kExifPrefix)) exif = exif.subspan(kExifPrefix.size());
  // libexif wants the prefix, and looks at 64 KiB at most, as much as a JPEG segment holds.
  std::string data(kExifPrefix);
  data.append(reinterpret_cast<const char*>(exif.data()), std::min<size_t>(exif.size(), 65'000));
  const std::unique_ptr<ExifData, UnrefData> parsed(exif_data_new());
  if (!parsed) return std::nullopt;
  // The file as it is, without repairs.
  exif_data_unset_option(parsed.get(), EXIF_DATA_OPTION_FOLLOW_SPECIFICATION);
  exif_data_unset_option(parsed.get(), EXIF_DATA_OPTION_IGNORE_UNKNOWN_TAGS);
  exif_data_load_data(parsed.get(), reinterpret_cast<const unsigned char*>(data.data()),
                      static_cast<unsigned>(data.size()));
  const ExifEntry* entry = exif_content_get_entry(parsed->ifd[EXIF_IFD_0], EXIF_TAG_ORIENTATION);
  if (entry == nullptr || entry->components != 1) return std::nullopt;
  const ExifByteOrder order = exif_data_get_byte_order(parsed.get());
  if (entry->format == EXIF_FORMAT_SHORT && entry->size >= 2) return exif_get_short(entry->data, order);
  if (entry->format == EXIF_FORMAT_LONG && entry->size >= 4) return static_cast<int>(exif_get_long(entry->data, order));
  return std::nullopt;
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
