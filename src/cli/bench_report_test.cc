#include "cli/bench_report.h"

#include <gtest/gtest.h>

namespace idefics::cli {
namespace {

Measurement example() {
  Measurement m{.kernels = "amx",
                .dtype = "bf16",
                .calibration = {.threads = 2,
                                .one = {.f32_flops = 100e9, .bf16_flops = 900e9, .int8_ops = {}, .read_bytes = 20e9},
                                .all = {.f32_flops = 200e9, .bf16_flops = 1800e9, .int8_ops = {}, .read_bytes = 40e9}},
                .picture_width = 1920,
                .picture_height = 1080,
                .tiles = 13,
                .prompt_tokens = 876,
                .generated_tokens = 128,
                .runs = 3};
  m.stages = {{.name = "load", .ms = {250}, .kind = Stage::Work::kBytes, .work = 1e9},
              {.name = "preprocess", .ms = {30, 20, 40}},
              {.name = "image prefill",
               .ms = {200, 100, 300},
               .unit = "token",
               .units = 876,
               .kind = Stage::Work::kOperations,
               .work = 180e9,
               .bound = 1800e9}};
  return m;
}

TEST(BenchReport, json_has_numbers_in_plain_units_and_null_for_what_is_not_known) {
  const json::value out = bench_json({"models/x", ""}, example());
  EXPECT_EQ(out.at("model"), "models/x");
  EXPECT_TRUE(out.at("image").at("file").is_null());
  EXPECT_EQ(out.at("image").at("tiles"), 13);
  EXPECT_EQ(out.at("peaks").at("one_thread").at("read_bytes"), 20e9);
  EXPECT_EQ(out.at("peaks").at("all_threads").at("bf16_flops"), 1800e9);
  EXPECT_TRUE(out.at("peaks").at("all_threads").at("int8_ops").is_null());
  EXPECT_TRUE(out.at("peak_rss_bytes").is_null());
  const json::value& load = out.at("stages").at("load");
  EXPECT_EQ(load.at("bytes_per_s"), 4e9);
  EXPECT_TRUE(load.at("share_of_bound").is_null());
  EXPECT_EQ(out.at("stages").at("preprocess"), (json::value{{"ms", 30.0}, {"runs_ms", {30.0, 20.0, 40.0}}}));
  const json::value& prefill = out.at("stages").at("image_prefill");
  EXPECT_EQ(prefill.at("tokens_per_s"), 4380.0);
  EXPECT_EQ(prefill.at("flops_per_s"), 900e9);
  EXPECT_EQ(prefill.at("bound_flops_per_s"), 1800e9);
  EXPECT_EQ(prefill.at("share_of_bound"), 0.5);
}

TEST(BenchReport, table_is_aligned_and_has_a_dash_for_what_is_not_known) {
  EXPECT_EQ(bench_text({"models/x", "card.png"}, example()),
            "model     models/x\n"
            "computes  amx, 2 threads, bf16; median of 3 runs\n"
            "asked     card.png of 1920 x 1080, 13 tiles; 876 prompt tokens, 128 new ones\n"
            "\n"
            "peak                    1 thread       2 threads\n"
            "float32              100 GFLOP/s     200 GFLOP/s\n"
            "bfloat16             900 GFLOP/s    1800 GFLOP/s\n"
            "int8                           -               -\n"
            "reading                20.0 GB/s       40.0 GB/s\n"
            "\n"
            "stage                   time          each             speed            rate   of peak\n"
            "load                  250 ms             -                 -       4.00 GB/s         -\n"
            "preprocess           30.0 ms             -                 -               -         -\n"
            "image prefill         200 ms       0.23 ms     4380 tokens/s     900 GFLOP/s      50 %\n"
            "peak memory                -\n");
}

TEST(BenchReport, one_thread_has_one_column_of_peaks) {
  Measurement m = example();
  m.calibration.threads = 1;
  const std::string text = bench_text({"models/x", ""}, m);
  EXPECT_NE(text.find("reading                20.0 GB/s\n"), std::string::npos) << text;
  EXPECT_NE(text.find("1 thread,"), std::string::npos) << text;
  EXPECT_NE(text.find("a made picture of 1920 x 1080"), std::string::npos) << text;
}

}  // namespace
}  // namespace idefics::cli
