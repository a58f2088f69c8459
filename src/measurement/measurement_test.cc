#include "measurement/measurement.h"

#include <gtest/gtest.h>

#include "image/codec.h"
#include "measurement/memory.h"
#include "measurement/test_picture.h"
#include "tensor/buffer.h"

namespace idefics {
namespace {

TEST(Stage, median_is_the_middle_or_between_the_two_middle_ones) {
  EXPECT_EQ((Stage{.name = "x", .ms = {9, 1, 2}}.median_ms()), 2);
  EXPECT_EQ((Stage{.name = "x", .ms = {9, 1, 2, 4}}.median_ms()), 3);
  EXPECT_EQ((Stage{.name = "x", .ms = {7}}.median_ms()), 7);
}

TEST(Stage, rates_are_of_a_second) {
  const Stage stage{.name = "decode",
                    .ms = {500},
                    .unit = "token",
                    .units = 100,
                    .kind = Stage::Work::kBytes,
                    .work = 4e9,
                    .bound = 16e9};
  EXPECT_EQ(stage.units_per_s(), 200);
  EXPECT_EQ(stage.work_per_s(), 8e9);
  EXPECT_EQ(stage.share(), 0.5);
}

TEST(Stage, knows_no_rate_of_what_was_not_counted) {
  const Stage stage{.name = "preprocess", .ms = {500}};
  EXPECT_EQ(stage.units_per_s(), std::nullopt);
  EXPECT_EQ(stage.work_per_s(), std::nullopt);
  EXPECT_EQ(stage.share(), std::nullopt);
  const Stage unbounded{.name = "load", .ms = {500}, .kind = Stage::Work::kBytes, .work = 1};
  EXPECT_EQ(unbounded.work_per_s(), 2);
  EXPECT_EQ(unbounded.share(), std::nullopt);
}

TEST(TestPicture, has_the_size_and_is_the_same_each_time) {
  const std::string picture = make_test_picture(320, 200);
  const ImageInfo info = probe_image(std::as_bytes(std::span(picture)));
  EXPECT_EQ(info.format, "png");
  EXPECT_EQ(info.width, 320);
  EXPECT_EQ(info.height, 200);
  EXPECT_EQ(picture, make_test_picture(320, 200));
}

TEST(PeakRss, forgets_what_was_given_back) {
  constexpr int64_t kBytes = 64 << 20;
  const int64_t before = peak_rss_bytes();
  {
    Buffer buffer(kBytes, "a test");
    for (std::byte& b : buffer.as<std::byte>()) b = std::byte{1};
  }
  EXPECT_GT(peak_rss_bytes(), before + kBytes / 2);
  if (restart_peak_rss()) {
    EXPECT_LT(peak_rss_bytes(), before + kBytes / 2);
  } else {  // a system that cannot: then nothing is forgotten, and a measurement says nothing of memory
    EXPECT_GT(peak_rss_bytes(), before + kBytes / 2);
  }
}

// On the card model: every stage is there once, with what it did.
TEST(Measurement, has_every_stage_with_a_time_for_each_run) {
  std::vector<std::string> said;
  MeasurementOptions options;
  options.folder = std::string(IDEFICS_SOURCE_DIR) + "/models/tiny-cards";
  options.engine.num_threads = 2;
  options.picture = make_test_picture(288, 288);
  options.max_tokens = 4;
  options.runs = 2;
  const Measurement m = measure(options, [&](const std::string& what) { said.push_back(what); });
  EXPECT_EQ(m.calibration.threads, 2);
  EXPECT_EQ(m.tiles, 5);
  EXPECT_EQ(m.generated_tokens, 4);
  EXPECT_EQ(m.picture_width, 288);
  std::vector<std::string> names;
  for (const Stage& stage : m.stages) {
    names.push_back(stage.name);
    EXPECT_EQ(stage.ms.size(), stage.name == "load" ? 1u : 2u) << stage.name;
    for (const double ms : stage.ms) EXPECT_GT(ms, 0) << stage.name;
  }
  EXPECT_EQ(names, (std::vector<std::string>{"load", "preprocess", "vision", "image prefill", "first token", "decode",
                                             "text prefill"}));
  EXPECT_EQ(m.stages[2].units, 5) << "no tile was found in a cache";
  EXPECT_EQ(m.stages[3].units, m.prompt_tokens);
  EXPECT_EQ(m.stages[5].units, 3);
  EXPECT_EQ(m.stages[6].units, 512);
  EXPECT_EQ(said.front(), "calibrating");
  EXPECT_EQ(said.back(), "text: run 2 of 2");
}

}  // namespace
}  // namespace idefics
