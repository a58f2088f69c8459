#include "checkpoint/generation_config.h"

#include <gtest/gtest.h>

#include "checkpoint/test_files.h"

namespace idefics {
namespace {

using test_files::error_of;

TEST(GenerationConfig, both_forms_of_eos_are_read_and_minus_one_means_none) {
  EXPECT_EQ(GenerationConfig::parse(R"({"eos_token_id": 5})", "g").eos_token_ids, std::vector<int32_t>{5});
  EXPECT_EQ(GenerationConfig::parse(R"({"eos_token_id": [5, 9]})", "g").eos_token_ids, (std::vector<int32_t>{5, 9}));
  EXPECT_TRUE(GenerationConfig::parse(R"({"eos_token_id": null, "pad_token_id": -1})", "g").eos_token_ids.empty());
  EXPECT_EQ(GenerationConfig::parse(R"({"pad_token_id": -1})", "g").pad_token_id, std::nullopt);
  EXPECT_EQ(GenerationConfig::parse(R"({"max_new_tokens": 7, "top_k": 50, "temperature": 1})", "g").top_k, 50);
}

TEST(GenerationConfig, bad_values_are_refused_by_key) {
  for (const char* pair :
       {R"("eos_token_id": "5")", R"("eos_token_id": -2)", R"("eos_token_id": 2147483648)", R"("eos_token_id": [-1])",
        R"("eos_token_id": [[5]])", R"("eos_token_id": {})", R"("bos_token_id": 1.0)", R"("pad_token_id": [1])",
        R"("do_sample": 1)", R"("temperature": -0.5)", R"("temperature": "hot")", R"("temperature": 1e999)",
        R"("top_k": -1)", R"("top_k": 0.5)", R"("top_p": 1.5)", R"("top_p": -0.1)", R"("repetition_penalty": 0)",
        R"("max_length": -1)", R"("max_new_tokens": 99999999999)"}) {
    const std::string text = std::string("{") + pair + "}";
    const std::string key = std::string(pair).substr(1, std::string(pair).find('"', 1) - 1);
    EXPECT_NE(error_of([&] { GenerationConfig::parse(text, "g"); }).find("g: " + key), std::string::npos) << text;
  }
  std::string many = R"({"eos_token_id": [0)";
  for (int i = 0; i < 2000; ++i) many += ",1";
  EXPECT_NE(error_of([&] { GenerationConfig::parse(many + "]}", "g"); }), "");
  EXPECT_NE(error_of([] { GenerationConfig::parse("[]", "g"); }), "");
}

TEST(GenerationConfig, an_absent_file_says_nothing) {
  const test_files::TempFolder folder;
  EXPECT_TRUE(GenerationConfig::load(folder.path()).eos_token_ids.empty());
  test_files::write(folder.path() / "generation_config.json", R"({"eos_token_id": 5})");
  EXPECT_EQ(GenerationConfig::load(folder.path()).eos_token_ids, std::vector<int32_t>{5});
}

}  // namespace
}  // namespace idefics
