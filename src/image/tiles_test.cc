#include "image/tiles.h"

#include <gtest/gtest.h>

#include <cstring>

#include "idefics/error.h"
#include "image/codec.h"
#include "image/resize.h"

namespace idefics {
namespace {

ImageProcessorConfig preset(int tile, int longest_edge) {
  ImageProcessorConfig config;
  config.max_image_size = tile;
  config.longest_edge = longest_edge;
  return config;
}

Image gradient(int width, int height) {
  Image image{width, height, {}};
  for (int i = 0; i < 3 * width * height; ++i) image.rgb.push_back(static_cast<uint8_t>(i * 7));
  return image;
}

void expect_refused(ErrorCode code, int width, int height, const ImageProcessorConfig& config) {
  try {
    plan_frames(width, height, config);
    ADD_FAILURE() << width << " x " << height << " was not refused";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), code) << e.what();
  }
}

TEST(Tiles, every_small_size_gives_the_frames_of_its_plan) {
  for (const bool split : {true, false}) {
    ImageProcessorConfig config = preset(4, 16);
    config.do_image_splitting = split;
    for (int width = 1; width <= 40; ++width) {
      for (int height = 1; height <= 40; ++height) {
        const FramePlan plan = plan_frames(width, height, config);
        const Frames frames = make_frames(gradient(width, height), config);
        ASSERT_EQ(frames.rows, plan.rows);
        ASSERT_EQ(frames.cols, plan.cols);
        ASSERT_EQ(frames.count, plan.num_frames);
        ASSERT_EQ(frames.count, split ? plan.rows * plan.cols + 1 : 1);
        ASSERT_EQ(frames.width, 4);
        ASSERT_EQ(frames.height, 4);
        ASSERT_EQ(frames.rgb.size(), static_cast<size_t>(frames.count) * 48);
        if (split) {
          ASSERT_EQ(plan.step2_width, plan.cols * 4);
          ASSERT_EQ(plan.step2_height, plan.rows * 4);
        }
      }
    }
  }
}

TEST(Tiles, are_cut_row_by_row_and_the_global_frame_is_last) {
  ImageProcessorConfig config = preset(2, 8);
  config.do_resize = false;
  const Image image = gradient(4, 4);  // already whole tiles: cut as it is
  const Frames frames = make_frames(image, config);
  ASSERT_EQ(frames.count, 5);
  for (int tile = 0; tile < 4; ++tile) {
    for (int row = 0; row < 2; ++row) {
      const int y = tile / 2 * 2 + row, x = tile % 2 * 2;
      EXPECT_EQ(0, std::memcmp(frames.frame(tile).data() + 6 * row, image.rgb.data() + 3 * (4 * y + x), 6));
    }
  }
  const Image global = resize(image, 2, 2, config.resample);
  EXPECT_EQ(0, std::memcmp(frames.frame(4).data(), global.rgb.data(), 12));
}

TEST(Tiles, threads_do_not_change_a_byte) {
  ThreadPool two(2);
  for (const auto& [width, height] : {std::pair(90, 60), {40, 300}, {300, 40}, {1, 1}, {160, 160}}) {
    const Image image = gradient(width, height);
    for (const bool split : {true, false}) {
      ImageProcessorConfig config = preset(40, 160);
      config.do_image_splitting = split;
      EXPECT_EQ(make_frames(image, config, &two).rgb, make_frames(image, config).rgb) << width << " x " << height;
    }
  }
}

TEST(Tiles, a_size_that_cannot_be_used_is_refused) {
  expect_refused(ErrorCode::kImageInvalid, 0, 5, preset(4, 16));
  expect_refused(ErrorCode::kImageInvalid, 5, -1, preset(4, 16));
  expect_refused(ErrorCode::kBadModel, 5, 5, preset(0, 16));
  expect_refused(ErrorCode::kBadModel, 5, 5, preset(4, 0));
  ImageProcessorConfig config = preset(4, 16);
  config.height = 0, config.width = 7;
  expect_refused(ErrorCode::kBadModel, 5, 5, config);
}

TEST(Tiles, a_stretched_picture_of_billions_of_pixels_is_refused) {
  expect_refused(ErrorCode::kImageTooLarge, 10, 10, preset(1 << 30, 16));
  ImageProcessorConfig config = preset(1 << 30, 16);
  config.do_image_splitting = false;
  expect_refused(ErrorCode::kImageTooLarge, 10, 10, config);
  config = preset(512, 2048);
  config.do_resize = false;
  expect_refused(ErrorCode::kImageTooLarge, 65'500, 65'500, config);
  config = preset(1, 2048);
  config.height = config.width = INT32_MAX;
  expect_refused(ErrorCode::kImageTooLarge, 10, 10, config);
}

TEST(Tiles, pixel_values_without_rescaling_or_normalising) {
  const std::vector<uint8_t> frame = {0, 128, 255, 1, 2, 3};
  std::vector<float> out(6);
  ImageProcessorConfig config;
  config.do_rescale = config.do_normalize = false;
  pixel_values(frame, 2, 1, config, out);
  EXPECT_EQ(out, (std::vector<float>{0, 1, 128, 2, 255, 3}));  // planes
  config.do_normalize = true;
  config.image_mean = {1, 2, 3};
  config.image_std = {2, 4, 8};
  pixel_values(frame, 2, 1, config, out);
  EXPECT_EQ(out, (std::vector<float>{-0.5, 0, 31.5, 0, 31.5, 0}));
}

TEST(EncodePng, comes_back_as_it_was) {
  for (const int width : {1, 3, 64}) {
    const Image image = gradient(width, 5);
    const std::string png = encode_png(image.rgb, image.width, image.height);
    const Image back = decode_image(std::as_bytes(std::span(png)));
    EXPECT_EQ(back.width, image.width);
    EXPECT_EQ(back.rgb, image.rgb);
  }
}

}  // namespace
}  // namespace idefics
