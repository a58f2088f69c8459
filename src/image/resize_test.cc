#include "image/resize.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "image/resize_pass.h"

namespace idefics {
namespace {

Image random_image(int width, int height, uint32_t seed) {
  std::mt19937 random(seed);
  Image image{width, height, std::vector<uint8_t>(static_cast<size_t>(3 * width * height))};
  for (uint8_t& v : image.rgb) v = static_cast<uint8_t>(random());
  return image;
}

// One row of gray pixels to `width` pixels.
std::vector<int> resize_row(const std::vector<int>& row, int width) {
  Image image{static_cast<int>(row.size()), 1, {}};
  for (const int v : row) image.rgb.insert(image.rgb.end(), 3, static_cast<uint8_t>(v));
  const Image out = resize(image, width, 1, Resample::kLanczos);
  std::vector<int> values;
  for (size_t x = 0; x < static_cast<size_t>(width); ++x) values.push_back(out.rgb[3 * x]);
  return values;
}

TEST(Resize, a_copy_when_the_size_is_the_same) {
  const Image image = random_image(7, 5, 1);
  for (const auto filter : {Resample::kNearest, Resample::kLanczos})
    EXPECT_EQ(resize(image, 7, 5, filter).rgb, image.rgb);
}

TEST(Resize, rows_recorded_from_the_reference) {
  EXPECT_EQ(resize_row({0, 50, 100, 255}, 8), (std::vector<int>{0, 8, 37, 57, 72, 143, 228, 255}));
  EXPECT_EQ(resize_row({0, 255, 0, 255, 255, 0, 255, 0}, 4), (std::vector<int>{94, 172, 172, 94}));
  EXPECT_EQ(resize_row({0, 255, 0, 255, 255, 0, 255, 0}, 5), (std::vector<int>{106, 119, 228, 119, 106}));
}

TEST(Resize, one_pixel_fills_any_size) {
  const Image image{1, 1, {10, 200, 255}};
  for (const auto filter : {Resample::kNearest, Resample::kLanczos, Resample::kBilinear, Resample::kBicubic,
                            Resample::kBox, Resample::kHamming}) {
    const Image out = resize(image, 13, 9, filter);
    for (size_t i = 0; i < out.rgb.size(); ++i) ASSERT_EQ(out.rgb[i], image.rgb[i % 3]);
  }
}

TEST(Resize, columns_and_rows_are_treated_alike) {
  const Image image = random_image(31, 1, 2);
  const Image column{1, 31, image.rgb};
  for (const int size : {1, 2, 16, 17, 30, 32, 100}) {
    EXPECT_EQ(resize(image, size, 1, Resample::kLanczos).rgb, resize(column, 1, size, Resample::kLanczos).rgb) << size;
  }
}

// The definition of a pass, one value at a time.
uint8_t weigh(const Axis& axis, size_t x, const uint8_t* in, size_t stride) {
  int64_t sum = 1 << (kWeightBits - 1);
  for (int i = 0; i < axis.windows[x].count; ++i) {
    sum += int64_t{axis.weights[x * static_cast<size_t>(axis.taps) + static_cast<size_t>(i)]} *
           in[static_cast<size_t>(axis.windows[x].first + i) * stride];
  }
  return static_cast<uint8_t>(std::clamp<int64_t>(sum >> kWeightBits, 0, 255));
}

// All rows of one pass over a picture.
std::vector<uint8_t> run(std::unique_ptr<const RowPass> pass, const std::vector<uint8_t>& rgb, int width, int height) {
  RowPasses passes;
  passes.push_back(std::move(pass));
  std::vector<uint8_t> out;
  compute_rows({[&](int) { return stored_rows(rgb.data(), width); }, width, height, passes}, nullptr,
               [&](int, const uint8_t* row) { out.insert(out.end(), row, row + 3 * passes[0]->width()); });
  return out;
}

TEST(ResizePass, equals_its_definition_at_awkward_sizes) {
  std::mt19937 random(3);
  for (const int in_size : {1, 2, 3, 7, 17, 64}) {
    for (const int out_size : {1, 2, 5, 16, 33}) {
      for (const int other : {1, 3, 4, 5, 6, 11, 22, 47}) {
        Axis axis;
        axis.taps = in_size;
        for (int x = 0; x < out_size; ++x) {
          const int first = static_cast<int>(random() % static_cast<unsigned>(in_size));
          const int count = 1 + static_cast<int>(random() % static_cast<unsigned>(in_size - first));
          axis.windows.push_back({first, count});
          // Weights of either sign whose sum stays near one, as filters have them.
          for (int i = 0; i < in_size; ++i) {
            axis.weights.push_back(static_cast<int32_t>(random() % (1u << 23)) / count - (1 << 21) / count);
          }
        }
        const Image image = random_image(in_size, other, random());
        std::vector<const ResizeLoops*> ways(resize_loops().begin(), resize_loops().end());
        ways.push_back(nullptr);
        for (const ResizeLoops* loops : ways) {
          const std::vector<uint8_t> wide =
              run(horizontal_pass(axis, in_size, other, loops), image.rgb, in_size, other);
          for (size_t i = 0; i < wide.size(); ++i) {
            const size_t y = i / static_cast<size_t>(3 * out_size), x = i / 3 % static_cast<size_t>(out_size);
            ASSERT_EQ(wide[i], weigh(axis, x, image.rgb.data() + y * static_cast<size_t>(3 * in_size) + i % 3, 3));
          }
          const size_t row_bytes = static_cast<size_t>(3 * other);
          const std::vector<uint8_t> high = run(vertical_pass(axis, other, loops), image.rgb, other, in_size);
          for (size_t i = 0; i < high.size(); ++i) {
            ASSERT_EQ(high[i], weigh(axis, i / row_bytes, image.rgb.data() + i % row_bytes, row_bytes));
          }
        }
      }
    }
  }
}

// Many bands a thread, and windows that are longer than a band.
TEST(Resize, threads_do_not_change_a_byte) {
  ThreadPool two(2), three(3);
  const Image image = random_image(150, 700, 5);
  for (const auto& [width, height] : {std::pair(300, 900), {75, 300}, {20, 40}, {151, 60}, {150, 350}, {40, 700}}) {
    for (const auto filter : {Resample::kNearest, Resample::kLanczos, Resample::kBox}) {
      const Image want = resize(image, width, height, filter);
      EXPECT_EQ(resize(image, width, height, filter, &two).rgb, want.rgb) << width << " x " << height;
      EXPECT_EQ(resize(image, width, height, filter, &three).rgb, want.rgb) << width << " x " << height;
    }
  }
}

TEST(Resize, very_long_windows_do_not_overflow) {
  const Image image{65'500, 1, std::vector<uint8_t>(3 * 65'500, 255)};
  for (const int width : {1, 2, 3}) {
    for (const uint8_t v : resize(image, width, 1, Resample::kLanczos).rgb) EXPECT_EQ(v, 255);
  }
}

}  // namespace
}  // namespace idefics
