#include "cli/shared_flags.h"

#include <gtest/gtest.h>

#include "idefics/error.h"

namespace idefics::cli {
namespace {

TEST(SamplingFlags, change_the_defaults_only_where_given) {
  SamplingParams defaults;
  defaults.temperature = 0.7;
  defaults.top_k = 50;
  SamplingFlags flags;
  flags.top_k = 3;
  flags.logit_bias = {"42=-1.5", "7=2"};
  flags.stop_token_ids = {"9"};
  flags.stop = {"END"};
  flags.ignore_eos = true;
  const SamplingParams params = flags.apply(defaults);
  EXPECT_EQ(params.temperature, 0.7);
  EXPECT_EQ(params.top_k, 3);
  EXPECT_EQ(params.logit_bias, (std::vector<std::pair<int32_t, double>>{{42, -1.5}, {7, 2}}));
  EXPECT_EQ(params.stop_token_ids, std::vector<int32_t>{9});
  EXPECT_EQ(params.stop, std::vector<std::string>{"END"});
  EXPECT_TRUE(params.ignore_eos);
  EXPECT_FALSE(params.seed.has_value());
}

TEST(SamplingFlags, refuse_what_is_no_bias) {
  for (const char* text : {"42", "=1", "42=", "x=1", "-1=1", "42=nan", "42=1=2", "99999999999=1", ""}) {
    SamplingFlags flags;
    flags.logit_bias = {text};
    EXPECT_THROW(flags.apply({}), Error) << text;
  }
}

TEST(SamplingFlags, special_tokens_are_kept_skipped_or_left_to_the_model) {
  SamplingFlags flags;
  EXPECT_EQ(flags.skip_special(), std::nullopt);
  flags.keep_special_tokens = true;
  EXPECT_EQ(flags.skip_special(), false);
  flags.skip_special_tokens = true;
  EXPECT_THROW(flags.skip_special(), Error);
  flags.keep_special_tokens = false;
  EXPECT_EQ(flags.skip_special(), true);
}

TEST(EngineFlags, become_the_engines_options) {
  EngineFlags flags;
  EXPECT_EQ(flags.options().dtype, ComputeType::kAuto);
  EXPECT_EQ(flags.options().kv_cache_dtype, KvCacheType::kAuto);
  EXPECT_EQ(flags.options().num_threads, 0);
  flags.dtype = "bf16";
  for (const auto& [name, type] : {std::pair("auto", KvCacheType::kAuto), std::pair("f32", KvCacheType::kF32),
                                   std::pair("bf16", KvCacheType::kBf16), std::pair("q8", KvCacheType::kQ8)}) {
    flags.kv_cache_dtype = name;
    EXPECT_EQ(flags.options().kv_cache_dtype, type) << name;
  }
  flags.threads = 3;
  flags.max_model_len = 100;
  flags.allow_nonfinite = true;
  EXPECT_EQ(flags.options().dtype, ComputeType::kBf16);
  EXPECT_EQ(flags.options().num_threads, 3);
  EXPECT_EQ(flags.options().max_model_len, 100);
  EXPECT_TRUE(flags.options().allow_nonfinite);
}

TEST(InputFlags, pictures_come_before_the_text_and_the_system_message_first) {
  const std::string samples = std::string(IDEFICS_SOURCE_DIR) + "/models/tiny-cards/samples/";
  InputFlags flags;
  flags.prompt = "What?";
  flags.system = "Be brief.";
  flags.images = {samples + "01.png", samples + "02.png"};
  const Conversation c = flags.read();
  ASSERT_EQ(c.messages.size(), 2u);
  EXPECT_EQ(c.messages[0].role, "system");
  ASSERT_EQ(c.messages[1].content.size(), 3u);
  EXPECT_EQ(c.messages[1].content[0].type, ContentPart::Type::kImage);
  EXPECT_EQ(c.messages[1].content[2].text, "What?");
  EXPECT_EQ(c.pictures, flags.images);
}

TEST(InputFlags, a_picture_alone_is_a_question) {
  InputFlags flags;
  flags.images = {std::string(IDEFICS_SOURCE_DIR) + "/models/tiny-cards/samples/01.png"};
  EXPECT_EQ(flags.read().messages.at(0).content.size(), 1u);
}

}  // namespace
}  // namespace idefics::cli
