// GIF, by giflib: the first picture of the file on its canvas.
#include <gif_lib.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "image/formats.h"

namespace idefics {
namespace {

constexpr std::string_view kName = "GIF";

struct CloseGif {
  void operator()(GifFileType* gif) const { DGifCloseFile(gif, nullptr); }
};
using Gif = std::unique_ptr<GifFileType, CloseGif>;

// The part of the file that giflib has not read yet.
int read_bytes(GifFileType* gif, GifByteType* to, int size) {
  Bytes& rest = *static_cast<Bytes*>(gif->UserData);
  const size_t count = std::min(rest.size(), static_cast<size_t>(std::max(size, 0)));
  if (count > 0) std::memcpy(to, rest.data(), count);
  rest = rest.subspan(count);
  return static_cast<int>(count);
}

[[noreturn]] void fail(Bytes rest) {
  if (rest.empty()) fail_truncated(kName);
  fail_image(kName, "file is damaged");
}

struct FirstFrame {
  Gif gif;
  int width = 0, height = 0;  // of the canvas, which grows where the frame leaves the screen
  int background = 0;         // index outside the frame: the transparent one if there is one
};

// Reads up to the pixels of the first frame.
FirstFrame open_first_frame(Bytes& rest, const ImageLimits& limits) {
  int error = 0;
  FirstFrame first;
  first.gif.reset(DGifOpen(&rest, read_bytes, &error));
  if (!first.gif) fail(rest);
  GifFileType* gif = first.gif.get();
  check_size(kName, std::max(gif->SWidth, 1), std::max(gif->SHeight, 1), limits);
  for (;;) {
    GifRecordType type;
    if (DGifGetRecordType(gif, &type) != GIF_OK) fail(rest);
    if (type == IMAGE_DESC_RECORD_TYPE) break;
    if (type != EXTENSION_RECORD_TYPE) fail_image(kName, "file holds no picture");
    int code = 0;
    GifByteType* block = nullptr;  // its first byte is its length
    if (DGifGetExtension(gif, &code, &block) != GIF_OK) fail(rest);
    if (code == GRAPHICS_EXT_FUNC_CODE && block != nullptr && block[0] >= 4 && (block[1] & 1))
      first.background = block[4];
    while (block != nullptr) {
      if (DGifGetExtensionNext(gif, &block) != GIF_OK) fail(rest);
    }
  }
  if (DGifGetImageDesc(gif) != GIF_OK) fail(rest);
  const GifImageDesc& frame = gif->Image;
  if (frame.Width < 1 || frame.Height < 1 || frame.Left < 0 || frame.Top < 0)
    fail_image(kName, "file holds an empty picture");
  first.width = std::max(gif->SWidth, frame.Left + frame.Width);
  first.height = std::max(gif->SHeight, frame.Top + frame.Height);
  check_size(kName, first.width, first.height, limits);
  return first;
}

Palette palette_of(const GifFileType* gif) {
  Palette palette;
  const ColorMapObject* colors = gif->Image.ColorMap ? gif->Image.ColorMap : gif->SColorMap;
  if (colors == nullptr) return palette;
  const int count = std::min(colors->ColorCount, 256);
  for (int i = 0; i < count; ++i)
    palette.set(i, colors->Colors[i].Red, colors->Colors[i].Green, colors->Colors[i].Blue);
  if (!palette.is_gray_ramp()) palette.set_size(count);  // the reference takes the picture for a gray one otherwise
  return palette;
}

bool matches(Bytes bytes) { return starts_with(bytes, "GIF87a") || starts_with(bytes, "GIF89a"); }

ImageInfo probe(Bytes bytes, const ImageLimits& limits) {
  const FirstFrame first = open_first_frame(bytes, limits);
  return {"gif", first.width, first.height};
}

Stored decode(Bytes bytes, const ImageLimits& limits) {
  Bytes rest = bytes;
  const FirstFrame first = open_first_frame(rest, limits);
  const GifImageDesc& frame = first.gif->Image;
  const Palette palette = palette_of(first.gif.get());
  Image image = new_image(first.width, first.height);
  std::vector<uint8_t> indices(static_cast<size_t>(std::max(first.width, frame.Width)),
                               static_cast<uint8_t>(first.background));
  if (frame.Width < first.width || frame.Height < first.height) {
    for (int y = 0; y < image.height; ++y)
      palette.expand(indices.data(), static_cast<size_t>(image.width), row_of(image, y));
  }
  const auto read_rows = [&](int start, int step) {
    for (int y = start; y < frame.Height; y += step) {
      if (DGifGetLine(first.gif.get(), indices.data(), frame.Width) != GIF_OK) fail(rest);
      palette.expand(indices.data(), static_cast<size_t>(frame.Width),
                     row_of(image, frame.Top + y) + ptrdiff_t{3} * frame.Left);
    }
  };
  if (frame.Interlace) {
    read_rows(0, 8), read_rows(4, 8), read_rows(2, 4), read_rows(1, 2);
  } else {
    read_rows(0, 1);
  }
  return {std::move(image), 1};
}

}  // namespace

const Format kGif = {"gif", matches, probe, decode};

}  // namespace idefics
