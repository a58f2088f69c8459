// Limits, bombs, damage. That good pictures come out right is the golden tests' business (tests/golden).
#include "image/codec.h"

#include <gtest/gtest.h>
#include <malloc.h>
#include <sys/resource.h>
#include <zlib.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <random>

#include "base/files.h"
#include "image/tiles.h"

namespace idefics {
namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

std::string golden_file(const std::string& name) {
  return read_file(std::filesystem::path(IDEFICS_GOLDENS) / "images" / name, 1 << 20);
}

Image decode(std::string_view bytes, const ImageLimits& limits = {}) {
  return decode_image(std::as_bytes(std::span(bytes)), limits);
}

// The error of a refused picture; fails when it is not refused, or its text is not one line.
std::optional<ErrorCode> refusal(std::string_view bytes, const ImageLimits& limits = {}) {
  try {
    decode(bytes, limits);
    return std::nullopt;
  } catch (const Error& e) {
    const std::string_view text = e.what();
    EXPECT_TRUE(text.starts_with("image: ") && text.find('\n') == text.npos && text.size() < 200) << text;
    return e.code();
  }
}

// ---- building files ----

std::string big32(uint32_t v) {
  return {static_cast<char>(v >> 24), static_cast<char>(v >> 16), static_cast<char>(v >> 8), static_cast<char>(v)};
}
std::string little16(uint32_t v) { return {static_cast<char>(v), static_cast<char>(v >> 8)}; }
std::string little32(uint32_t v) { return little16(v) + little16(v >> 16); }

std::string chunk(const std::string& type, const std::string& data) {
  const std::string body = type + data;
  const uLong sum = crc32(0, reinterpret_cast<const Bytef*>(body.data()), static_cast<uInt>(body.size()));
  return big32(static_cast<uint32_t>(data.size())) + body + big32(static_cast<uint32_t>(sum));
}

std::string deflate_zeros(size_t size) {
  const std::string zeros(size, '\0');
  uLongf packed_size = compressBound(static_cast<uLong>(size));
  std::string packed(packed_size, '\0');
  compress2(reinterpret_cast<Bytef*>(packed.data()), &packed_size, reinterpret_cast<const Bytef*>(zeros.data()),
            static_cast<uLong>(size), 9);
  packed.resize(packed_size);
  return packed;
}

// A gray PNG, black if `idat` holds enough zeros; `extra` goes before the pixels.
std::string png(uint32_t width, uint32_t height, const std::string& idat, const std::string& extra = "") {
  return "\x89PNG\r\n\x1a\n" + chunk("IHDR", big32(width) + big32(height) + std::string("\x08\0\0\0\0", 5)) + extra +
         chunk("IDAT", idat) + chunk("IEND", "");
}

std::string tiff(const std::vector<std::pair<uint32_t, uint32_t>>& tags) {
  std::string bytes = std::string("II*\0", 4) + little32(8) + little16(static_cast<uint32_t>(tags.size()));
  for (const auto& [tag, value] : tags) bytes += little16(tag) + little16(4) + little32(1) + little32(value);
  return bytes + little32(0) + std::string(4096, '\0');
}

std::string gif(uint32_t width, uint32_t height, const std::string& frames) {
  return "GIF89a" + little16(width) + little16(height) + std::string("\0\0\0", 3) + frames + ";";
}
// One pixel.
std::string gif_frame() {
  return std::string(",") + little16(0) + little16(0) + little16(1) + little16(1) +
         std::string("\0\x02\x02\x44\x01\0", 6);
}

std::string bmp(uint32_t width, uint32_t height, uint32_t bits = 24, uint32_t compression = 0) {
  return "BM" + little32(0) + little32(0) + little32(54) + little32(40) + little32(width) + little32(height) +
         little16(1) + little16(bits) + little32(compression) + std::string(20, '\0');
}

std::string webp_canvas(uint32_t width, uint32_t height) {
  const auto u24 = [](uint32_t v) { return little32(v).substr(0, 3); };
  const std::string body = "WEBPVP8X" + little32(10) + little32(0) + u24(width - 1) + u24(height - 1);
  return "RIFF" + little32(static_cast<uint32_t>(body.size())) + body;
}

std::string jpeg_header(uint32_t width, uint32_t height) {
  std::string bytes = golden_file("rgb444.jpg");
  for (size_t at = 0; at + 9 < bytes.size(); ++at) {
    if (bytes[at] == '\xff' && bytes[at + 1] == '\xc0') {
      bytes[at + 5] = static_cast<char>(height >> 8), bytes[at + 6] = static_cast<char>(height);
      bytes[at + 7] = static_cast<char>(width >> 8), bytes[at + 8] = static_cast<char>(width);
      break;
    }
  }
  return bytes;
}

// The progressive golden picture with its last scan `count` times more.
std::string jpeg_of_many_scans(size_t count) {
  const std::string bytes = golden_file("progressive.jpg");
  const size_t scan = bytes.rfind("\xff\xda"), end = bytes.rfind("\xff\xd9");
  std::string out = bytes.substr(0, end);
  for (size_t i = 0; i < count; ++i) out.append(bytes, scan, end - scan);
  return out + "\xff\xd9";
}

std::string repeat(const std::string& part, size_t count) {
  std::string out;
  for (size_t i = 0; i < count; ++i) out += part;
  return out;
}

// ---- bombs ----

// Each case may take 100 ms and 16 MiB.
TEST(Bombs, are_refused_from_the_header_or_cost_little) {
  using enum ErrorCode;
  const std::string zeros = deflate_zeros(100 << 20);  // 100 KB
  const std::string one_pixel = deflate_zeros(2);
  struct Bomb {
    const char* name;
    std::string bytes;
    std::optional<ErrorCode> want;  // nothing: decoded
  };
  const Bomb bombs[] = {
      {"PNG 65535 x 65535", png(65535, 65535, zeros), kImageTooLarge},
      {"PNG 2^31 - 1 x 1", png(0x7fffffff, 1, zeros), kImageTooLarge},
      {"PNG 2^32 - 1 a side", png(0xffffffff, 0xffffffff, zeros), kImageTooLarge},
      {"PNG 19000 x 19000", png(19000, 19000, zeros), kImageTooLarge},
      {"PNG 0 x 1", png(0, 1, zeros), kImageInvalid},
      {"PNG with a profile of 100 MB", png(1, 1, one_pixel, chunk("iCCP", std::string("p\0\0", 3) + zeros)),
       std::nullopt},
      {"PNG with a text of 100 MB", png(1, 1, one_pixel, chunk("zTXt", std::string("t\0\0", 3) + zeros)), std::nullopt},
      {"PNG with 150 such texts", png(1, 1, one_pixel, repeat(chunk("zTXt", std::string("t\0\0", 3) + zeros), 150)),
       std::nullopt},
      {"PNG with XMP of 100 MB",
       png(1, 1, one_pixel, chunk("iTXt", std::string("XML:com.adobe.xmp\0\x01\0\0\0", 22) + zeros)), std::nullopt},
      {"PNG with 100,000 texts", png(1, 1, one_pixel, repeat(chunk("tEXt", std::string("a\0b", 3)), 100'000)),
       std::nullopt},
      {"PNG with EXIF of 10 MB", png(1, 1, one_pixel, chunk("eXIf", "II*" + std::string(10 << 20, '\0'))),
       std::nullopt},
      {"JPEG 65535 x 65535", jpeg_header(65535, 65535), kImageTooLarge},
      {"JPEG 65500 x 65500", jpeg_header(65500, 65500), kImageTooLarge},
      {"JPEG 10000 x 10000", jpeg_header(10000, 10000), kImageTooLarge},
      {"JPEG 0 x 0", jpeg_header(0, 0), kImageInvalid},
      {"JPEG with 5,000 scans", jpeg_of_many_scans(5'000), kImageTooLarge},
      {"JPEG with 80,000 scans", jpeg_of_many_scans(80'000), kImageTooLarge},
      {"WebP 65535 x 65535", webp_canvas(65535, 65535), kImageTooLarge},
      {"WebP 2^24 x 2^24", webp_canvas(1 << 24, 1 << 24), kImageInvalid},
      {"TIFF 65535 x 65535", tiff({{256, 65535}, {257, 65535}, {258, 8}, {262, 1}, {273, 200}, {279, 100}}),
       kImageTooLarge},
      {"TIFF 2^32 - 1 a side", tiff({{256, 0xffffffff}, {257, 0xffffffff}, {258, 8}, {262, 1}, {273, 200}, {279, 100}}),
       kImageInvalid},
      {"TIFF with 65529 samples a pixel",
       tiff({{256, 100}, {257, 100}, {258, 8}, {262, 1}, {273, 200}, {277, 65529}, {279, 100}}), kImageInvalid},
      {"TIFF with a huge tile",
       tiff({{256, 10}, {257, 10}, {258, 8}, {262, 1}, {322, 1 << 20}, {323, 1 << 20}, {324, 200}, {325, 100}}),
       kImageTooLarge},
      {"TIFF without pixels", tiff({{256, 100}, {257, 100}, {258, 8}, {262, 1}}), kImageInvalid},
      {"GIF 65535 x 65535", gif(65535, 65535, gif_frame()), kImageTooLarge},
      {"GIF with 100,000 frames", gif(1, 1, repeat(gif_frame(), 100'000)), std::nullopt},
      {"GIF with a far frame", gif(1, 1, std::string(",") + little16(60000) + little16(60000) + gif_frame().substr(5)),
       kImageTooLarge},
      {"BMP 65535 x 65535", bmp(65535, 65535), kImageTooLarge},
      {"BMP 2^31 - 1 a side", bmp(0x7fffffff, 0x7fffffff), kImageTooLarge},
      {"BMP of run lengths 9000 x 9000 without any", bmp(9000, 9000, 8, 1), kImageInvalid},
      {"BMP 9000 x 9000 without pixels", bmp(9000, 9000), kImageInvalid},
  };
  // CPU time, so that a busy machine does not count.
  const auto cpu_ms = [](const rusage& r) {
    return static_cast<double>(r.ru_utime.tv_sec + r.ru_stime.tv_sec) * 1e3 +
           static_cast<double>(r.ru_utime.tv_usec + r.ru_stime.tv_usec) / 1e3;
  };
  for (const Bomb& bomb : bombs) {
    // Gives back what the making of the bombs has left free, and forgets the high-water mark of memory.
    malloc_trim(0);
    std::ofstream("/proc/self/clear_refs") << "5";
    rusage before, after;
    getrusage(RUSAGE_SELF, &before);
    EXPECT_EQ(refusal(bomb.bytes), bomb.want) << bomb.name;
    getrusage(RUSAGE_SELF, &after);
    if (kSanitized) continue;  // both figures are another program's there
    EXPECT_LE(cpu_ms(after) - cpu_ms(before), 100) << bomb.name;
    EXPECT_LE(after.ru_maxrss - before.ru_maxrss, 16 << 10) << bomb.name << " (KiB)";
  }
}

TEST(Limits, bytes_pixels_and_sides) {
  const std::string bytes = golden_file("rgb.png");  // 38 x 66
  EXPECT_EQ(refusal(bytes, {.max_bytes = bytes.size()}), std::nullopt);
  EXPECT_EQ(refusal(bytes, {.max_bytes = bytes.size() - 1}), ErrorCode::kImageTooLarge);
  EXPECT_EQ(refusal(bytes, {.max_pixels = 38 * 66}), std::nullopt);
  EXPECT_EQ(refusal(bytes, {.max_pixels = 38 * 66 - 1}), ErrorCode::kImageTooLarge);
  EXPECT_EQ(refusal(bytes, {.max_side = 66}), std::nullopt);
  EXPECT_EQ(refusal(bytes, {.max_side = 65}), ErrorCode::kImageTooLarge);
}

TEST(Limits, scans_of_a_progressive_jpeg) {
  EXPECT_EQ(refusal(jpeg_of_many_scans(100), {.max_jpeg_scans = 200}), std::nullopt);
  EXPECT_EQ(refusal(jpeg_of_many_scans(300), {.max_jpeg_scans = 200}), ErrorCode::kImageTooLarge);
}

TEST(Codec, what_is_no_picture_is_refused) {
  for (const std::string_view bytes :
       {"", "B", "BM", "GIF89a", "II*", "RIFF", "hello, world", "\xff\xd8\xff", "%PDF-1.7", "<svg/>"}) {
    EXPECT_EQ(refusal(bytes), ErrorCode::kImageInvalid) << bytes;
  }
}

TEST(Codec, the_format_is_told_by_the_bytes) {
  const std::pair<const char*, const char*> files[] = {
      {"rgb.png", "png"},  {"rgb420.jpg", "jpeg"}, {"lossy.webp", "webp"}, {"lzw.tif", "tiff"},
      {"anim.gif", "gif"}, {"palette.bmp", "bmp"}, {"anim.webp", "webp"}};
  for (const auto& [file, format] : files) {
    const std::string bytes = golden_file(file);
    const ImageInfo info = probe_image(std::as_bytes(std::span(bytes)));
    const Image image = decode(bytes);
    EXPECT_EQ(info.format, format);
    EXPECT_EQ(info.width, image.width);
    EXPECT_EQ(info.height, image.height);
  }
}

TEST(Codec, probing_gives_the_size_as_stored) {
  const std::string bytes = golden_file("exif6.jpg");  // a turned picture
  const ImageInfo info = probe_image(std::as_bytes(std::span(bytes)));
  const Image image = decode(bytes);
  EXPECT_EQ(info.width, image.height);
  EXPECT_EQ(info.height, image.width);
}

// ---- damage ----

// Calls `test` with the bytes of each golden picture.
void for_each_golden(const std::function<void(const std::string& name, const std::string& bytes)>& test) {
  int count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(std::filesystem::path(IDEFICS_GOLDENS) / "images")) {
    const std::string name = entry.path().filename().string();
    if (entry.path().extension() == ".jsonl") continue;
    test(name, golden_file(name));
    ++count;
  }
  EXPECT_EQ(count, 85);
}

// Decodes what may be damaged; anything but a picture or an Error is a crash, which needs no check.
void survive(const std::vector<char>& bytes) {
  const ImageLimits limits = {.max_pixels = 1 << 20, .max_side = 1 << 16, .max_jpeg_scans = 50};
  try {
    decode_image(std::as_bytes(std::span(bytes)), limits);
  } catch (const Error&) {
  }
  try {
    probe_image(std::as_bytes(std::span(bytes)), limits);
  } catch (const Error&) {
  }
}

TEST(Damage, files_cut_anywhere_are_survived) {
  for_each_golden([](const std::string&, const std::string& bytes) {
    const size_t step = std::max<size_t>(bytes.size() / 200, 1);
    for (size_t size = 0; size < bytes.size(); size += step)
      survive({bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(size)});
  });
}

TEST(Damage, flipped_bits_are_survived) {
  std::mt19937 random(4);
  for_each_golden([&](const std::string&, const std::string& bytes) {
    for (int round = 0; round < (kSanitized ? 60 : 300) && !bytes.empty(); ++round) {
      std::vector<char> damaged(bytes.begin(), bytes.end());
      // Headers are where it matters: half of the flips fall into the first 64 bytes.
      for (int flips = 1 + round % 4; flips > 0; --flips) {
        const size_t range = random() % 2 ? damaged.size() : std::min<size_t>(damaged.size(), 64);
        char& byte = damaged[random() % range];
        byte = static_cast<char>(byte ^ 1 << random() % 8);
      }
      survive(damaged);
    }
  });
}

// A cut picture must not pass for a whole one. What may be missing: what stands behind the pixels.
TEST(Damage, files_without_their_second_half_are_refused) {
  for (const char* name :
       {"rgb.png", "interlaced.png", "palette.png", "rgb420.jpg", "progressive.jpg", "cmyk.jpg", "lossy.webp",
        "lossless.webp", "anim.webp", "rgb.tif", "lzw.tif", "g4.tif", "gif.gif", "rgb.bmp", "bilevel.bmp"}) {
    const std::string bytes = golden_file(name);
    EXPECT_EQ(refusal(bytes.substr(0, bytes.size() / 2)), ErrorCode::kImageInvalid) << name;
  }
}

}  // namespace
}  // namespace idefics
