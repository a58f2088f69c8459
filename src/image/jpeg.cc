// JPEG, by libjpeg-turbo: exact integer DCT and smooth chroma upsampling, the settings of the reference.
// clang-format off
#include <cstdio>  // jpeglib.h needs FILE and size_t
#include <jpeglib.h>
#include <jerror.h>
// clang-format on

#include <csetjmp>
#include <vector>

#include "image/formats.h"

namespace idefics {
namespace {

constexpr std::string_view kName = "JPEG";
// Pixels times scans that a progressive picture may cost; the largest allowed picture with about 40 scans, some 10 s.
constexpr uint64_t kMaxScanPixels = 4'000'000'000;

// libjpeg reports errors by a callback that must not return; it jumps. Each method that may jump holds nothing but
// plain values, and says false after one.
class JpegReader {
 public:
  JpegReader(Bytes bytes, const ImageLimits& limits) : max_scans_(limits.max_jpeg_scans) {
    jpeg_.err = jpeg_std_error(&errors_);
    errors_.error_exit = on_error;
    errors_.emit_message = [](j_common_ptr, int) {};
    errors_.output_message = [](j_common_ptr) {};
    jpeg_.client_data = this;
    if (!create(static_cast<long>(std::min<uint64_t>(limits.max_decode_bytes, uint64_t{1} << 31))))
      throw std::bad_alloc();
    source_.next_input_byte = as_u8(bytes);
    source_.bytes_in_buffer = bytes.size();
    source_.init_source = [](j_decompress_ptr) {};
    source_.fill_input_buffer = on_end;
    source_.skip_input_data = on_skip;
    source_.resync_to_restart = jpeg_resync_to_restart;
    source_.term_source = [](j_decompress_ptr) {};
    jpeg_.src = &source_;
    progress_.progress_monitor = on_progress;
    jpeg_.progress = &progress_;
  }
  JpegReader(const JpegReader&) = delete;
  JpegReader& operator=(const JpegReader&) = delete;
  ~JpegReader() { jpeg_destroy_decompress(&jpeg_); }

  bool read_header() {
    if (setjmp(jump_)) return false;
    jpeg_save_markers(&jpeg_, JPEG_APP0 + 1, 0xFFFF);  // EXIF and XMP
    jpeg_read_header(&jpeg_, TRUE);
    return true;
  }
  bool start() {
    if (setjmp(jump_)) return false;
    const uint64_t pixels = uint64_t{jpeg_.image_width} * jpeg_.image_height;
    max_scans_ = std::min(max_scans_, static_cast<int>(std::min<uint64_t>(kMaxScanPixels / pixels, INT32_MAX)));
    jpeg_.out_color_space = jpeg_.num_components == 4 ? JCS_CMYK : JCS_RGB;
    jpeg_.dct_method = JDCT_ISLOW;
    jpeg_.do_fancy_upsampling = TRUE;
    jpeg_start_decompress(&jpeg_);
    return true;
  }
  bool read_row(uint8_t* row) {
    if (setjmp(jump_)) return false;
    jpeg_read_scanlines(&jpeg_, &row, 1);
    return true;
  }
  // Reads on to the end marker.
  bool finish() {
    if (setjmp(jump_)) return false;
    jpeg_finish_decompress(&jpeg_);
    return true;
  }
  const jpeg_decompress_struct& header() const { return jpeg_; }
  [[noreturn]] void fail() const {
    if (too_many_scans_) fail_too_large(kName, "file has more scans than allowed; save it as a baseline JPEG");
    if (errors_.msg_code == JERR_IMAGE_TOO_BIG)
      fail_too_large(kName, "picture is more than 65500 pixels wide or high; send a smaller one");
    if (cut_off_) fail_truncated(kName);
    fail_image(kName, "file is damaged or of an unsupported kind");
  }

 private:
  bool create(long max_memory) {
    if (setjmp(jump_)) return false;
    jpeg_create_decompress(&jpeg_);
    jpeg_.mem->max_memory_to_use = max_memory;
    return true;
  }
  static JpegReader& self(j_common_ptr jpeg) { return *static_cast<JpegReader*>(jpeg->client_data); }
  [[noreturn]] static void on_error(j_common_ptr jpeg) { longjmp(self(jpeg).jump_, 1); }
  static boolean on_end(j_decompress_ptr jpeg) {
    const auto common = reinterpret_cast<j_common_ptr>(jpeg);
    self(common).cut_off_ = true;
    on_error(common);
  }
  static void on_skip(j_decompress_ptr jpeg, long count) {
    if (count <= 0) return;
    if (static_cast<size_t>(count) > jpeg->src->bytes_in_buffer) on_end(jpeg);
    jpeg->src->next_input_byte += count;
    jpeg->src->bytes_in_buffer -= static_cast<size_t>(count);
  }
  static void on_progress(j_common_ptr jpeg) {
    JpegReader& reader = self(jpeg);
    if (reader.jpeg_.input_scan_number <= reader.max_scans_) return;
    reader.too_many_scans_ = true;
    on_error(jpeg);
  }

  int max_scans_;
  bool cut_off_ = false, too_many_scans_ = false;
  jpeg_decompress_struct jpeg_ = {};
  jpeg_error_mgr errors_ = {};
  jpeg_source_mgr source_ = {};
  jpeg_progress_mgr progress_ = {};
  jmp_buf jump_ = {};
};

int orientation_of(const jpeg_decompress_struct& jpeg) {
  Bytes exif, xmp;
  for (const jpeg_marker_struct* marker = jpeg.marker_list; marker != nullptr; marker = marker->next) {
    const Bytes data = std::as_bytes(std::span(marker->data, marker->data_length));
    constexpr std::string_view kExif("Exif\0\0", 6), kXmp("http://ns.adobe.com/xap/1.0/\0", 29);
    if (exif.empty() && starts_with(data, kExif)) exif = data;
    if (starts_with(data, kXmp)) xmp = data.subspan(kXmp.size());
  }
  return find_orientation(exif, xmp);
}

bool matches(Bytes bytes) { return starts_with(bytes, "\xff\xd8\xff"); }

void read_header(JpegReader& reader, const ImageLimits& limits) {
  if (!reader.read_header()) reader.fail();
  const jpeg_decompress_struct& jpeg = reader.header();
  check_size(kName, jpeg.image_width, jpeg.image_height, limits);
  if (jpeg.num_components != 1 && jpeg.num_components != 3 && jpeg.num_components != 4) {
    fail_image(kName, "file has a number of colour components other than 1, 3 or 4");
  }
}

ImageInfo probe(Bytes bytes, const ImageLimits& limits) {
  JpegReader reader(bytes, limits);
  read_header(reader, limits);
  return {"jpeg", static_cast<int>(reader.header().image_width), static_cast<int>(reader.header().image_height)};
}

Stored decode(Bytes bytes, const ImageLimits& limits) {
  JpegReader reader(bytes, limits);
  read_header(reader, limits);
  const int orientation = orientation_of(reader.header());  // the markers are gone after finish()
  if (!reader.start()) reader.fail();
  Image image =
      new_image(static_cast<int>(reader.header().image_width), static_cast<int>(reader.header().image_height));
  const bool cmyk = reader.header().num_components == 4;
  const auto width = static_cast<size_t>(image.width);
  std::vector<uint8_t> inks(cmyk ? 4 * width : 0);
  for (int y = 0; y < image.height; ++y) {
    uint8_t* rgb = row_of(image, y);
    if (!reader.read_row(cmyk ? inks.data() : rgb)) reader.fail();
    if (!cmyk) continue;
    for (uint8_t& ink : inks) ink = static_cast<uint8_t>(255 - ink);  // CMYK in JPEG is stored inverted, as Adobe does
    for (size_t x = 0; x < width; ++x) cmyk_to_rgb(inks.data() + 4 * x, rgb + 3 * x);
  }
  if (!reader.finish()) reader.fail();
  return {std::move(image), orientation};
}

}  // namespace

const Format kJpeg = {"jpeg", matches, probe, decode};

}  // namespace idefics
