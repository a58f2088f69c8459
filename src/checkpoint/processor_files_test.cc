#include "checkpoint/processor_files.h"

#include <gtest/gtest.h>

#include "checkpoint/test_files.h"

namespace idefics {
namespace {

using test_files::error_of;
using test_files::TempFolder;
using test_files::write;

ProcessorConfig split(std::string_view preprocessor) { return parse_processor_config(std::nullopt, preprocessor, "m"); }

TEST(ProcessorFiles, absent_keys_have_the_references_defaults) {
  const ProcessorConfig config = split("{}");
  EXPECT_EQ(config.image_seq_len, 169);
  EXPECT_EQ(config.image.longest_edge, 1456);
  EXPECT_EQ(config.image.max_image_size, 364);
  EXPECT_EQ(config.image.resample, Resample::kLanczos);
  EXPECT_EQ(config.image.image_std, (std::array{0.5f, 0.5f, 0.5f}));
  EXPECT_TRUE(config.image.do_convert_rgb && config.image.do_resize && config.image.do_image_splitting &&
              config.image.do_rescale && config.image.do_normalize && config.image.do_pad);
}

TEST(ProcessorFiles, the_merged_form_comes_before_the_split_one) {
  const char* merged = R"({"image_processor": {"size": {"longest_edge": 88}, "do_pad": false}, "image_seq_len": 7})";
  const char* preprocessor = R"({"size": {"longest_edge": 99}})";
  EXPECT_EQ(parse_processor_config(merged, preprocessor, "m").image.longest_edge, 88);
  EXPECT_FALSE(parse_processor_config(merged, std::nullopt, "m").image.do_pad);
  EXPECT_EQ(parse_processor_config(merged, std::nullopt, "m").image_seq_len, 7);
  EXPECT_EQ(parse_processor_config(R"({"image_seq_len": 7})", preprocessor, "m").image.longest_edge, 99);
  EXPECT_EQ(parse_processor_config(R"({"image_seq_len": 7})", preprocessor, "m").image_seq_len, 7);
  EXPECT_NE(error_of([] {
              parse_processor_config(R"({"image_seq_len": 7})", std::nullopt, "m");
            }).find("preprocessor_config.json"),
            std::string::npos);
}

TEST(ProcessorFiles, size_is_the_long_side_or_height_and_width) {
  const ProcessorConfig fixed = split(R"({"size": {"height": 30, "width": 40}})");
  EXPECT_EQ(fixed.image.height, 30);
  EXPECT_EQ(fixed.image.width, 40);
  EXPECT_EQ(split(R"({"size": {"longest_edge": 77}})").image.height, std::nullopt);
}

TEST(ProcessorFiles, one_mean_counts_for_all_channels) {
  const ProcessorConfig config = split(R"({"image_mean": 0.25, "image_std": [0.1, 0.2, 0.3]})");
  EXPECT_EQ(config.image.image_mean, (std::array{0.25f, 0.25f, 0.25f}));
  EXPECT_EQ(config.image.image_std, (std::array{0.1f, 0.2f, 0.3f}));
}

TEST(ProcessorFiles, bad_values_are_refused_by_key) {
  for (const char* pair : {R"("size": {})",
                           R"("size": {"height": 5})",
                           R"("size": {"width": 5})",
                           R"("size": {"longest_edge": 5, "height": 5})",
                           R"("size": {"longest_edge": 5, "height": 5, "width": 5})",
                           R"("size": {"shortest_edge": 5})",
                           R"("size": 5)",
                           R"("size": [5, 5])",
                           R"("size": {"longest_edge": 0})",
                           R"("size": {"longest_edge": 1000000})",
                           R"("size": {"longest_edge": 5.0})",
                           R"("max_image_size": {})",
                           R"("max_image_size": 364)",
                           R"("max_image_size": {"longest_edge": -1})",
                           R"("max_image_size": {"longest_edge": 100000})",
                           R"("resample": 6)",
                           R"("resample": -1)",
                           R"("resample": "lanczos")",
                           R"("image_mean": [0.5])",
                           R"("image_mean": [0.5, 0.5])",
                           R"("image_mean": [1, 2, 3, 4])",
                           R"("image_mean": "x")",
                           R"("image_mean": [0.5, null, 0.5])",
                           R"("image_mean": 1e300)",
                           R"("image_std": 0)",
                           R"("image_std": [1, 0, 1])",
                           R"("do_resize": 1)",
                           R"("do_pad": "true")",
                           R"("rescale_factor": "1/255")",
                           R"("rescale_factor": 1e999)"}) {
    const std::string text = std::string("{") + pair + "}";
    const std::string key = std::string(pair).substr(1, std::string(pair).find('"', 1) - 1);
    EXPECT_NE(error_of([&] { split(text); }).find(key), std::string::npos) << text;
  }
  for (const char* length : {"0", "-1", "1.5", "null", "\"64\"", "99999999999"}) {
    const std::string text = fmt::format(R"({{"image_seq_len": {}}})", length);
    EXPECT_NE(error_of([&] { parse_processor_config(text, "{}", "m"); }).find("image_seq_len"), std::string::npos)
        << text;
  }
}

TEST(ProcessorFiles, a_processor_of_another_model_is_refused) {
  ProcessorConfig processor;
  Idefics3Config config;
  config.vision_config.image_size = 364;
  config.vision_config.patch_size = 14;
  EXPECT_EQ(error_of([&] { check_processor_config(processor, config); }), "");
  processor.image_seq_len = 64;
  EXPECT_NE(error_of([&] { check_processor_config(processor, config); }).find("image_seq_len is 64"),
            std::string::npos);
  processor.image_seq_len = 169;
  processor.image.max_image_size = 384;
  EXPECT_NE(error_of([&] { check_processor_config(processor, config); }).find("max_image_size is 384"),
            std::string::npos);
}

TEST(ChatTemplate, the_files_are_searched_in_the_references_order) {
  const TempFolder folder;
  EXPECT_EQ(find_chat_template(folder.path()), std::nullopt);
  write(folder.path() / "tokenizer_config.json", R"({"chat_template": "from the tokenizer"})");
  EXPECT_EQ(find_chat_template(folder.path()), "from the tokenizer");
  write(folder.path() / "processor_config.json", R"({"chat_template": "from the processor"})");
  EXPECT_EQ(find_chat_template(folder.path()), "from the processor");
  write(folder.path() / "chat_template.jinja", "from jinja\n");
  EXPECT_EQ(find_chat_template(folder.path()), "from jinja\n");
  write(folder.path() / "chat_template.json", R"({"chat_template": "from json"})");
  EXPECT_EQ(find_chat_template(folder.path()), "from json");
}

TEST(ChatTemplate, of_named_templates_the_default_is_taken) {
  const TempFolder folder;
  const std::filesystem::path path = folder.path() / "tokenizer_config.json";
  write(path, R"({"chat_template": [{"name": "tool_use", "template": "a"}, {"name": "default", "template": "b"}]})");
  EXPECT_EQ(find_chat_template(folder.path()), "b");
  for (const char* bad : {R"([{"name": "tool_use", "template": "a"}])", "[]", R"([{"name": "default"}])", R"(["x"])",
                          "5", "{}", R"([{"name": 1, "template": "a"}])", R"([{"name": "default", "template": 3}])"}) {
    write(path, fmt::format(R"({{"chat_template": {}}})", bad));
    EXPECT_NE(error_of([&] { find_chat_template(folder.path()); }).find("chat_template"), std::string::npos) << bad;
  }
}

TEST(TokenizerConfig, tokens_may_be_texts_or_objects_and_the_old_map_fills_gaps) {
  const TempFolder folder;
  EXPECT_EQ(load_tokenizer_config(folder.path()).eos_token, std::nullopt);
  write(folder.path() / "tokenizer_config.json",
        R"({"bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": false},
    "pad_token": null, "model_max_length": 1000000000000000019884624838656})");
  write(folder.path() / "special_tokens_map.json", R"({"bos_token": "<other>", "pad_token": {"content": "<pad>"}})");
  const TokenizerConfig config = load_tokenizer_config(folder.path());
  EXPECT_EQ(config.bos_token, "<s>");
  EXPECT_EQ(config.eos_token, "</s>");
  EXPECT_EQ(config.pad_token, "<pad>");
  EXPECT_EQ(config.unk_token, std::nullopt);
  EXPECT_EQ(config.model_max_length, std::nullopt);
  write(folder.path() / "tokenizer_config.json", R"({"model_max_length": 8192})");
  EXPECT_EQ(load_tokenizer_config(folder.path()).model_max_length, 8192);
}

TEST(TokenizerConfig, bad_values_are_refused_by_key) {
  const TempFolder folder;
  for (const char* pair :
       {R"("bos_token": 1)", R"("eos_token": ["x"])", R"("pad_token": {})", R"("unk_token": {"content": 5})",
        R"("model_max_length": 0)", R"("model_max_length": -1)", R"("model_max_length": "8192")"}) {
    write(folder.path() / "tokenizer_config.json", fmt::format("{{{}}}", pair));
    const std::string key = std::string(pair).substr(1, std::string(pair).find('"', 1) - 1);
    EXPECT_NE(error_of([&] { load_tokenizer_config(folder.path()); }).find(key), std::string::npos) << pair;
  }
}

}  // namespace
}  // namespace idefics
