// WebP, by libwebp and its demultiplexer.
#include <webp/decode.h>
#include <webp/demux.h>

#include <memory>

#include "image/formats.h"

namespace idefics {
namespace {

constexpr std::string_view kName = "WebP";

struct DeleteDemuxer {
  void operator()(WebPDemuxer* demuxer) const { WebPDemuxDelete(demuxer); }
};
using Demuxer = std::unique_ptr<WebPDemuxer, DeleteDemuxer>;

// The bytes of the first metadata chunk of a kind; empty when there is none. They lie in the file's own bytes.
Bytes find_chunk(const WebPDemuxer* demuxer, const char* kind) {
  WebPChunkIterator it;
  Bytes found;
  if (WebPDemuxGetChunk(demuxer, kind, 1, &it)) found = std::as_bytes(std::span(it.chunk.bytes, it.chunk.size));
  WebPDemuxReleaseChunkIterator(&it);
  return found;
}

// The first frame, at its place in the picture. Animations start from a black, transparent canvas.
bool decode_first_frame(const WebPDemuxer* demuxer, Image& image) {
  struct Iterator : WebPIterator {
    ~Iterator() { WebPDemuxReleaseIterator(this); }
  } frame = {};
  if (!WebPDemuxGetFrame(demuxer, 1, &frame) || !frame.complete) return false;
  const int64_t right = int64_t{frame.x_offset} + frame.width, bottom = int64_t{frame.y_offset} + frame.height;
  if (frame.width < 1 || frame.height < 1 || right > image.width || bottom > image.height) return false;
  WebPDecoderConfig config;
  if (!WebPInitDecoderConfig(&config)) return false;
  if (WebPGetFeatures(frame.fragment.bytes, frame.fragment.size, &config.input) != VP8_STATUS_OK) return false;
  if (config.input.width != frame.width || config.input.height != frame.height) return false;
  uint8_t* start = row_of(image, frame.y_offset) + ptrdiff_t{3} * frame.x_offset;
  config.output.colorspace = MODE_RGB;
  config.output.is_external_memory = 1;
  config.output.u.RGBA.rgba = start;
  config.output.u.RGBA.stride = 3 * image.width;
  config.output.u.RGBA.size = static_cast<size_t>(image.rgb.data() + image.rgb.size() - start);
  return WebPDecode(frame.fragment.bytes, frame.fragment.size, &config) == VP8_STATUS_OK;
}

bool matches(Bytes bytes) {
  return bytes.size() >= 12 && starts_with(bytes, "RIFF") && starts_with(bytes.subspan(8), "WEBP");
}

ImageInfo probe(Bytes bytes, const ImageLimits& limits) {
  WebPBitstreamFeatures features;
  const VP8StatusCode status = WebPGetFeatures(as_u8(bytes), bytes.size(), &features);
  if (status == VP8_STATUS_NOT_ENOUGH_DATA) fail_truncated(kName);
  if (status != VP8_STATUS_OK) fail_image(kName, "file is damaged");
  check_size(kName, features.width, features.height, limits);
  return {"webp", features.width, features.height};
}

Stored decode(Bytes bytes, const ImageLimits& limits) {
  probe(bytes, limits);
  const WebPData data = {as_u8(bytes), bytes.size()};
  const Demuxer demuxer(WebPDemux(&data));
  if (!demuxer) fail_image(kName, "file is damaged or cut off");
  const auto width = int64_t{WebPDemuxGetI(demuxer.get(), WEBP_FF_CANVAS_WIDTH)};
  const auto height = int64_t{WebPDemuxGetI(demuxer.get(), WEBP_FF_CANVAS_HEIGHT)};
  check_size(kName, width, height, limits);
  Image image = new_image(static_cast<int>(width), static_cast<int>(height));
  if (!decode_first_frame(demuxer.get(), image)) fail_image(kName, "file is damaged");
  return {std::move(image), find_orientation(find_chunk(demuxer.get(), "EXIF"), find_chunk(demuxer.get(), "XMP "))};
}

}  // namespace

const Format kWebp = {"webp", matches, probe, decode};

}  // namespace idefics
