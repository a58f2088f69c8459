// Pictures from bytes to frames, against the reference: geometry, resampling, decoders.
#include <fmt/format.h>

#include "base/sha256.h"
#include "golden.h"
#include "image/codec.h"
#include "image/resize.h"
#include "image/tiles.h"

namespace idefics {
namespace {

std::string hash(std::span<const uint8_t> bytes) { return sha256_hex(std::as_bytes(bytes)); }

int int_or(const json::object& row, std::string_view key, int otherwise) {
  const json::value* value = row.if_contains(key);
  return value ? static_cast<int>(value->as_int64()) : otherwise;
}
std::string text(const json::object& row, std::string_view key) { return std::string(row.at(key).as_string()); }

// "20/40" -> M and L.
ImageProcessorConfig preset(std::string_view name) {
  ImageProcessorConfig config;
  const size_t slash = name.find('/');
  config.max_image_size = std::stoi(std::string(name.substr(0, slash)));
  config.longest_edge = std::stoi(std::string(name.substr(slash + 1)));
  return config;
}

// The synthetic picture of the recorded frames.
Image synthetic(int width, int height) {
  Image image{width, height, {}};
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      for (int c = 0; c < 3; ++c) {
        image.rgb.push_back(static_cast<uint8_t>(7 * x + 13 * y + 53 * c + ((x * y) >> 3) * (c + 1)));
      }
    }
  }
  return image;
}

std::string describe(const FramePlan& p) {
  return fmt::format("step1 {}x{} step2 {}x{} grid {}x{} frames {} of {}x{}", p.step1_width, p.step1_height,
                     p.step2_width, p.step2_height, p.rows, p.cols, p.num_frames, p.frame_width, p.frame_height);
}

TEST(ImagesGolden, geometry) {
  golden::Family family("geometry");
  for (const json::value& value : golden::read_lines("geometry.jsonl")) {
    const json::object& row = value.as_object();
    ImageProcessorConfig config;
    config.do_resize = !row.contains("do_resize");
    config.longest_edge = int_or(row, "L", 0);
    config.max_image_size = int_or(row, "M", 0);
    config.do_image_splitting = row.at("split").as_bool();
    if (row.contains("height")) config.height = int_or(row, "height", 0), config.width = int_or(row, "width", 0);
    const int width = int_or(row, "w", 0), height = int_or(row, "h", 0);
    if (row.contains("error")) {
      bool refused = false;
      try {
        plan_frames(width, height, config);
      } catch (const Error&) {
        refused = true;
      }
      family.check(refused, json::serialize(value) + ": not refused");
      continue;
    }
    const FramePlan plan = plan_frames(width, height, config);
    FramePlan want;
    const auto size = [&](std::string_view key, int& w, int& h, int other_w, int other_h) {
      const json::value* v = row.if_contains(key);
      w = v ? static_cast<int>(v->at(0).as_int64()) : other_w;
      h = v ? static_cast<int>(v->at(1).as_int64()) : other_h;
    };
    size("step1", want.step1_width, want.step1_height, width, height);
    size("step2", want.step2_width, want.step2_height, want.step1_width, want.step1_height);
    size("frame", want.frame_width, want.frame_height, 0, 0);
    want.rows = int_or(row, "rows", -1), want.cols = int_or(row, "cols", -1),
    want.num_frames = int_or(row, "frames", -1);
    family.check(describe(plan) == describe(want), json::serialize(value) + ": got " + describe(plan));
  }
}

TEST(ImagesGolden, frames_of_the_synthetic_picture) {
  golden::Family family("frames");
  for (const json::value& value : golden::read_lines("frames.jsonl")) {
    const json::object& row = value.as_object();
    ImageProcessorConfig config;
    config.longest_edge = int_or(row, "L", 0);
    config.max_image_size = int_or(row, "M", 0);
    config.resample = static_cast<Resample>(int_or(row, "resample", 1));
    const Image image = synthetic(int_or(row, "w", 0), int_or(row, "h", 0));
    const Frames frames = make_frames(image, config);
    bool good = frames.rows == int_or(row, "rows", -1) && frames.cols == int_or(row, "cols", -1) &&
                hash(frames.rgb) == text(row, "frames") && hash(frames.frame(frames.count - 1)) == text(row, "global");
    if (row.contains("unsplit")) {
      config.do_image_splitting = false;
      good = good && hash(make_frames(image, config).rgb) == text(row, "unsplit");
    }
    family.check(good, json::serialize(value));
  }
}

// What differs between the row and the decoded picture; empty when nothing does.
std::string compare(const json::object& row, const Image& image) {
  const json::array& size = row.at("size").as_array();
  if (image.width != size[0].as_int64() || image.height != size[1].as_int64()) {
    return fmt::format("size {} x {}", image.width, image.height);
  }
  if (hash(image.rgb) != text(row, "rgb")) return "rgb";
  for (const auto& [name, want] : row.at("frames").as_object()) {
    ImageProcessorConfig config = preset(name);
    config.do_image_splitting = false;
    if (hash(make_frames(image, config).rgb) != std::string_view(want.as_string()))
      return "frames " + std::string(name);
  }
  for (const auto& [name, want] : row.at("split").as_object()) {
    const Frames frames = make_frames(image, preset(name));
    if (frames.rows != want.at(0).as_int64() || frames.cols != want.at(1).as_int64() ||
        hash(frames.rgb) != std::string_view(want.at(2).as_string())) {
      return "split " + std::string(name);
    }
  }
  for (const auto& [name, want] : row.at("pixel_values").as_object()) {
    const ImageProcessorConfig config = preset(name);
    const Frames frames = make_frames(image, config);
    std::vector<float> values(frames.rgb.size());
    const size_t frame_size = frames.frame(0).size();
    for (int i = 0; i < frames.count; ++i) {
      pixel_values(frames.frame(i), frames.width, frames.height, config,
                   std::span(values).subspan(static_cast<size_t>(i) * frame_size, frame_size));
    }
    if (sha256_hex(std::as_bytes(std::span(values))) != std::string_view(want.as_string())) return "pixel_values";
  }
  return "";
}

TEST(ImagesGolden, files) {
  golden::Family family("images");
  for (const json::value& value : golden::read_lines("images/cases.jsonl")) {
    const json::object& row = value.as_object();
    const std::string file = text(row, "file");
    const std::string bytes = read_file(golden::data("images/" + file), 1 << 20);
    try {
      const Image image = decode_image(std::as_bytes(std::span(bytes)));
      if (row.contains("error")) {
        family.check(false, file + ": not refused");
      } else {
        const std::string problem = compare(row, image);
        family.check(problem.empty(), file + ": " + problem);
      }
    } catch (const Error& e) {
      // A damaged file that the reference still decodes may be refused as well.
      family.check(row.contains("error") || row.contains("damaged"), file + ": " + e.what());
    }
  }
}

// Every value of a byte, rescaled and normalised with the default parameters.
TEST(ImagesGolden, the_table_of_pixel_values) {
  golden::Family family("pixel_table");
  std::vector<uint8_t> bytes;
  for (int v = 0; v < 256; ++v) bytes.insert(bytes.end(), 3, static_cast<uint8_t>(v));
  std::vector<float> values(3 * 256);
  pixel_values(bytes, 256, 1, {}, values);
  for (size_t channel = 0; channel < 3; ++channel) {
    const std::string got = sha256_hex(std::as_bytes(std::span(values).subspan(256 * channel, 256)));
    family.check(got == "d15e8ce72284446496a6de66e8a4795818530b44cd2c3dd415077364535c3c1a", got);
  }
}

}  // namespace
}  // namespace idefics
