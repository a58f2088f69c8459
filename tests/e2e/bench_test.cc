// idefics bench, and the stages of generate --verbose. What they say, not how fast it is.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "program.h"

namespace idefics::e2e {
namespace {

const std::string kModel = tiny_cards().string();
const std::string kCard = (tiny_cards() / "samples/01.png").string();

std::string text(const json::value& row, std::string_view key) { return std::string(row.at(key).as_string()); }

// A finite number above zero.
void expect_positive(const json::value& value, const std::string& what) {
  ASSERT_TRUE(value.is_number()) << what;
  const auto number = value.to_number<double>();
  EXPECT_TRUE(std::isfinite(number) && number > 0) << what << " is " << number;
}

// A measurement of one run, as it is printed, at a level or the best one.
Outcome measure_card(const std::string& level = "") {
  return run({"bench", kModel, "--image", kCard, "--runs", "1", "--max-tokens", "8", "--threads", "2", "--json"},
             {.environment = {{"IDEFICS_KERNELS", level}}});
}

void expect_measurement(const json::value& out, bool has_peaks) {
  EXPECT_EQ(text(out, "model"), kModel);
  EXPECT_EQ(text(out, "dtype"), "bf16");
  EXPECT_EQ(out.at("threads"), 2);
  EXPECT_EQ(out.at("runs"), 1);
  EXPECT_EQ(text(out.at("image"), "file"), kCard);
  EXPECT_EQ(out.at("image").at("width"), 256);
  EXPECT_EQ(out.at("image").at("tiles"), 5);
  EXPECT_EQ(out.at("generated_tokens"), 8);
  expect_positive(out.at("peak_rss_bytes"), "peak_rss_bytes");
  for (const char* threads : {"one_thread", "all_threads"}) {
    const json::value& peaks = out.at("peaks").at(threads);
    expect_positive(peaks.at("read_bytes"), threads);
    for (const char* peak : {"f32_flops", "bf16_flops", "int8_ops"}) {
      if (has_peaks) {
        expect_positive(peaks.at(peak), peak);
      } else {
        EXPECT_TRUE(peaks.at(peak).is_null()) << peak;
      }
    }
  }
  const json::value& stages = out.at("stages");
  EXPECT_EQ(stages.as_object().size(), 7u);
  for (const auto& [name, stage] : stages.as_object()) {
    expect_positive(stage.at("ms"), name);
    EXPECT_EQ(stage.at("runs_ms").as_array().size(), 1u) << name;
  }
  expect_positive(stages.at("vision").at("ms_per_tile"), "ms_per_tile");
  expect_positive(stages.at("decode").at("tokens_per_s"), "decode");
  expect_positive(stages.at("decode").at("share_of_bound"), "decode");
  EXPECT_EQ(stages.at("decode").at("tokens"), 7);
  EXPECT_EQ(stages.at("image_prefill").at("tokens"), out.at("prompt_tokens"));
  EXPECT_EQ(stages.at("text_prefill").at("tokens"), 512);
  for (const char* stage : {"vision", "image_prefill", "first_token", "text_prefill"}) {
    expect_positive(stages.at(stage).at("flops_per_s"), stage);
    EXPECT_EQ(stages.at(stage).at("share_of_bound").is_number(), has_peaks) << stage;
  }
}

TEST(Bench, json_has_every_stage_beside_its_bound) {
  const json::value out = parse_output(measure_card());
  expect_measurement(out, text(out, "kernels") != "ref");
}

TEST(Bench, plain_kernels_have_only_reading_for_a_bound) {
  const json::value out = parse_output(measure_card("ref"));
  EXPECT_EQ(text(out, "kernels"), "ref");
  expect_measurement(out, false);
}

TEST(Bench, work_does_not_depend_on_the_format_but_bytes_do) {
  const auto stages = [](const std::string& dtype) {
    return parse_output(run({"bench", kModel, "--image", kCard, "--runs", "1", "--max-tokens", "2", "--dtype", dtype,
                             "--no-image-splitting", "--json"}))
        .at("stages");
  };
  const json::value f32 = stages("f32"), bf16 = stages("bf16");
  EXPECT_EQ(f32.at("vision").at("tiles"), 1);
  EXPECT_EQ(f32.at("vision").at("flops"), bf16.at("vision").at("flops"));
  EXPECT_EQ(f32.at("decode").at("bytes").as_int64(), 2 * bf16.at("decode").at("bytes").as_int64());
}

TEST(Bench, table_tells_level_threads_format_and_stages_and_needs_no_picture) {
  const Outcome outcome = run({"bench", kModel, "--runs", "1", "--max-tokens", "2", "--threads", "1"});
  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_EQ(outcome.err, "") << "progress is for terminals";
  for (const char* word : {"1 thread,", "bf16", "a made picture of 1920 x 1080", "reading", "preprocess", "vision",
                           "image prefill", "first token", "decode", "text prefill", "peak memory"})
    EXPECT_NE(outcome.out.find(word), std::string::npos) << word << "\n" << outcome.out;
}

TEST(Plot, draws_our_measurement_beside_those_of_others) {
  ASSERT_EQ(run_command("command -v python3").exit_code, 0) << "bench/plot needs python3: run tools/install_packages";
  const ScratchFolder scratch;
  const std::string ours = scratch.write("ours.json", measure_card().out).string();
  const std::string others =
      scratch
          .write("others.json",
                 R"({"a & b": {"image": {"ttft_ms": [3000, 2900, 3100], "decode_tokens_per_s": [50, 49, 52]}},
                                       "text only": {"text": {"ttft_ms": [1, 1, 1]}}})")
          .string();
  const std::string plot = std::string(IDEFICS_SOURCE_DIR) + "/bench/plot ";
  const Outcome outcome = run_command(plot + "--title '1 < 2' " + ours + " " + others);
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_TRUE(outcome.out.starts_with("<svg ") && outcome.out.ends_with("</svg>\n")) << outcome.out;
  for (const char* word : {"1 &lt; 2", "idefics bf16", "a &amp; b", ">3.00<", ">50<", "bound, bf16"})
    EXPECT_NE(outcome.out.find(word), std::string::npos) << word << "\n" << outcome.out;
  EXPECT_EQ(outcome.out.find("text only"), std::string::npos);
  const Outcome broken = run_command(plot + scratch.write("broken.json", "[]").string());
  EXPECT_EQ(broken.exit_code, 1);
  EXPECT_NE(broken.err.find("broken.json"), std::string::npos) << broken.err;
  EXPECT_EQ(std::count(broken.err.begin(), broken.err.end(), '\n'), 1) << broken.err;
}

TEST(Peers, measures_a_server_and_new_processes) {
  const ScratchFolder scratch;
  const std::string results = (scratch.path() / "results.json").string();
  const std::string model = kModel, bench = std::string(IDEFICS_SOURCE_DIR) + "/bench/";
  std::string command = bench + "peers --runs 1 --max-tokens 4 --text-tokens 40 --idefics " + IDEFICS_PROGRAM +
                        " --model " + model + " --json " + results + " --image " + model + "/samples/01.png";
  const Outcome few = run_command(command);
  EXPECT_EQ(few.exit_code, 1) << "a picture that was seen before may be in a cache";
  const Outcome outcome = run_command(command + " --image " + model + "/samples/02.png");
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_TRUE(outcome.out.starts_with("| | idefics bf16 | idefics bf16, new process |\n")) << outcome.out;
  for (const char* row : {"\n| vision tower, ms a tile | ", "\n| text: time to the first token, ms | "})
    EXPECT_NE(outcome.out.find(row), std::string::npos) << row << "\n" << outcome.out;
  const Outcome drawn = run_command(bench + "plot " + results);
  EXPECT_NE(drawn.out.find("idefics bf16, new process"), std::string::npos) << drawn.err;
}

// ---- generate --verbose

TEST(Verbose, says_on_standard_error_what_each_stage_took_and_did) {
  const std::vector<std::string> question = {"generate", kModel, "--image", kCard, "-p", "What colour is the circle?"};
  std::vector<std::string> aloud = question;
  aloud.push_back("-v");
  const Outcome quiet = run(question), outcome = run(aloud);
  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_EQ(outcome.out, quiet.out);
  EXPECT_EQ(quiet.err, "");
  for (const char* line :
       {" ms  load\n", " ms  preprocess   # ", " ms  queue\n", " ms  vision       # 5 tiles, 5 encoded, ",
        " ms  prefill      # ", " tokens, 0 cached, ", " ms  first token  # ", " ms  decode       # ",
        " ms  steps        # ", "speculation  # ", " MiB  memory       # weights "})
    EXPECT_NE(outcome.err.find(line), std::string::npos) << line << "\n" << outcome.err;
  EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 10);
}

TEST(Verbose, counts_the_last_step_too) {
  const std::vector<std::string> arguments = {"generate", kModel, "-p", "Hi", "--max-tokens", "1", "--verbose"};
  const Outcome outcome = run(arguments);
  EXPECT_NE(outcome.err.find("# 1 together, "), std::string::npos) << outcome.err;
  EXPECT_NE(outcome.err.find("# 1 tokens, "), std::string::npos) << outcome.err;
}

}  // namespace
}  // namespace idefics::e2e
