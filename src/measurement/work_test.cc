#include "measurement/work.h"

#include <gtest/gtest.h>

namespace idefics {
namespace {

// Small enough to count by hand.
Idefics3Config small_config() {
  Idefics3Config config;
  config.scale_factor = 2;
  config.vision_config.num_channels = 3;
  config.vision_config.image_size = 9;  // one column and one row of pixels are beyond the patches
  config.vision_config.patch_size = 2;
  config.vision_config.hidden_size = 6;
  config.vision_config.intermediate_size = 10;
  config.vision_config.num_attention_heads = 2;
  config.vision_config.head_dim = 3;
  config.vision_config.num_hidden_layers = 2;
  config.vision_config.scale_factor = 2;
  config.text_config.hidden_size = 8;
  config.text_config.intermediate_size = 12;
  config.text_config.num_hidden_layers = 3;
  config.text_config.num_attention_heads = 4;
  config.text_config.num_key_value_heads = 2;
  config.text_config.head_dim = 5;  // 4 heads are 20 wide, not 8
  config.text_config.vocab_size = 100;
  return config;
}

TEST(TileFlops, are_those_counted_by_hand) {
  // 16 patches of 12 values, 6 wide:                                  16 x 12 x 6 products         = 1152
  // a layer: q, k, v 16 x 6 x 18 = 1728; scores 16 x 16 x 6 = 1536, sums the same; out 16 x 6 x 6 = 576;
  //          MLP 16 x 6 x 10 = 960, twice:                            1728 + 3072 + 576 + 1920     = 7296
  // connector: 4 tokens of 4 patches, 24 values, to 8:                4 x 24 x 8                   = 768
  EXPECT_EQ(tile_flops(small_config()), 2 * (1152 + 2 * 7296 + 768));
}

TEST(PromptFlops, are_those_counted_by_hand) {
  // a layer, 3 tokens: q 20, k 10 and v 10 wide 3 x 8 x 40 = 960; 1 + 2 + 3 pairs: 6 x 20 = 120, twice;
  //                    out 3 x 20 x 8 = 480; gate, up and down 3 x 8 x 12 = 288, three times
  const int64_t layer = 960 + 240 + 480 + 864;
  EXPECT_EQ(prompt_flops(small_config(), 3), 2 * (3 * layer + 8 * 100));
}

TEST(TileFlops, of_the_smallest_published_shape_are_215_billion) {
  Idefics3Config config = small_config();
  config.scale_factor = 4;
  config.vision_config.image_size = 512;
  config.vision_config.patch_size = 16;
  config.vision_config.hidden_size = 768;
  config.vision_config.intermediate_size = 3072;
  config.vision_config.num_hidden_layers = 12;
  config.vision_config.scale_factor = 4;
  config.text_config.hidden_size = 576;
  EXPECT_NEAR(static_cast<double>(tile_flops(config)), 215e9, 1e9);
}

}  // namespace
}  // namespace idefics
