#include "idefics/processor.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <random>
#include <set>

#include "base/files.h"
#include "base/json.h"
#include "idefics/error.h"
#include "image/codec.h"

namespace idefics {
namespace {

const std::filesystem::path kModel = std::filesystem::path(IDEFICS_SOURCE_DIR) / "models/tiny-cards";

std::string picture() { return read_file(kModel / "samples/01.png", 1 << 24); }

const Processor& processor() {
  static const Processor p = Processor::load(kModel);
  return p;
}

TEST(Processor, each_tile_has_its_run_of_image_tokens_in_order) {
  const std::vector<Message> messages = {
      {"user", {ContentPart::of_text("Compare "), ContentPart::of_image(picture()), ContentPart::of_image(picture())}}};
  const Prompt prompt = processor().prompt(messages);
  const int S = processor().config().image_seq_len;
  ASSERT_EQ(prompt.images.size(), 2u);
  ASSERT_EQ(prompt.tiles.size(), 10u);
  EXPECT_EQ(prompt.num_image_tokens, 10 * S);
  int end = 0;
  for (size_t i = 0; i < prompt.tiles.size(); ++i) {
    EXPECT_EQ(prompt.tiles[i].image, static_cast<int>(i) / 5);
    EXPECT_EQ(prompt.tiles[i].tile, static_cast<int>(i) % 5);
    EXPECT_GT(prompt.tiles[i].first, end) << "a control token stands between tiles";
    end = prompt.tiles[i].first + S;
    for (int t = prompt.tiles[i].first; t < end; ++t)
      ASSERT_EQ(prompt.ids[static_cast<size_t>(t)], processor().image_token_id());
  }
}

TEST(Processor, the_cost_of_a_picture_is_what_it_takes_in_a_prompt) {
  for (const std::optional<int> max_tiles :
       {std::optional<int>(), std::optional(1), std::optional(2), std::optional(4), std::optional(5)}) {
    const PromptOptions options{.images = {.max_tiles = max_tiles}};
    const auto cost = processor().image_cost(256, 256, options.images);
    const std::vector<std::string> files = {picture()};
    const Prompt prompt = processor().raw_prompt("<image>", files, options);
    EXPECT_EQ(std::ssize(prompt.ids), cost.tokens);
    EXPECT_EQ(prompt.num_image_tokens, cost.image_tokens);
    EXPECT_EQ(prompt.images[0].count, cost.tiles);
    EXPECT_LE(cost.tiles, max_tiles.value_or(1000));
  }
}

TEST(Processor, somebody_else_may_decode_its_pictures) {
  int asked = 0;
  DecodedPicture answer;
  const Processor p = Processor::load(kModel, [&](std::string_view bytes) {
    ++asked;
    EXPECT_EQ(bytes, "any bytes");
    return answer;
  });
  const std::string file = picture();
  const Image image = decode_image(std::as_bytes(std::span(file)));
  answer = {image.width, image.height, image.rgb};
  const PromptImage expected = processor().cut(picture()), cut = p.cut("any bytes");
  EXPECT_EQ(asked, 1);
  EXPECT_EQ(cut.rows, expected.rows);
  EXPECT_EQ(cut.tiles, expected.tiles);
  for (const DecodedPicture& bad : {DecodedPicture{}, DecodedPicture{2, 2, std::vector<uint8_t>(11)},
                                    DecodedPicture{-1, -1, std::vector<uint8_t>(3)}}) {
    answer = bad;
    EXPECT_THROW(p.cut("any bytes"), Error);
  }
}

TEST(Processor, no_text_of_a_user_becomes_a_control_token) {
  const json::value file = parse_json(read_file(kModel / "tokenizer.json", 1 << 26), "tokenizer.json");
  std::vector<std::string> names;
  std::set<int32_t> control;
  for (const json::value& token : file.at("added_tokens").as_array()) {
    if (!token.at("special").as_bool()) continue;  // others, like tags of a layout, are text that anyone may write
    names.emplace_back(token.at("content").as_string());
    control.insert(static_cast<int32_t>(token.at("id").as_int64()));
  }
  ASSERT_GT(names.size(), 10u);
  const auto count = [&](const std::vector<int32_t>& ids) {
    return std::count_if(ids.begin(), ids.end(), [&](int32_t id) { return control.contains(id); });
  };
  const auto in_prompt = [&](const std::string& text) {
    const std::vector<Message> chat = {{"system", {ContentPart::of_text(text)}},
                                       {"user", {ContentPart::of_text(text), ContentPart::of_text(text)}}};
    return count(processor().prompt(chat).ids);
  };
  const auto expected = in_prompt("x");
  for (const std::string& name : names) {
    for (const std::string& text : {name, "a" + name, name + "b", " " + name + "\n", name + name}) {
      EXPECT_EQ(count(processor().tokenize(text, false, true)), 0) << text;
      EXPECT_EQ(in_prompt(text), expected) << text;
    }
  }
  // Whole control tokens, halves of them and other texts in random order.
  const char* wish = std::getenv("IDEFICS_RANDOM_TEXTS");
  std::mt19937 random(1);
  for (int i = 0, n = wish != nullptr ? std::atoi(wish) : 5000; i < n; ++i) {
    std::string text;
    for (unsigned k = random() % 8; k < 8; ++k) {
      const std::string& name = names[random() % names.size()];
      const unsigned kind = random() % 4;
      text += kind == 0 ? "<|" : kind == 1 ? name.substr(0, random() % name.size()) : kind == 2 ? "\xc3\xa9 x" : name;
    }
    ASSERT_EQ(count(processor().tokenize(text, false, true)), 0) << text;
    if (i % 16 == 0 && !text.empty()) {
      ASSERT_EQ(in_prompt(text), expected) << text;
    }
  }
}

TEST(Processor, a_raw_prompt_needs_one_picture_for_each_place) {
  const std::vector<std::string> one = {picture()}, none;
  EXPECT_THROW(processor().raw_prompt("no place", one), Error);
  EXPECT_THROW(processor().raw_prompt("<image>", none), Error);
  EXPECT_THROW(processor().raw_prompt("", none), Error);
  EXPECT_EQ(processor().raw_prompt("plain", none).tiles.size(), 0u);
}

TEST(Processor, options_out_of_range_are_refused_by_name) {
  for (const ImageOptions& options :
       {ImageOptions{.longest_edge = 0}, ImageOptions{.longest_edge = 5000}, ImageOptions{.max_tiles = 0}}) {
    EXPECT_THROW(processor().cut(picture(), options), Error);
  }
}

TEST(Processor, every_golden_checkpoint_loads_and_ends_its_answers) {
  for (const std::string name :
       {"a_llama3_rope", "b_head_dim", "c_smolvlm", "d_null_scaling", "e_defaults", "f_granite"}) {
    const Processor p = Processor::load(std::filesystem::path(IDEFICS_GOLDENS) / "checkpoints" / name);
    EXPECT_FALSE(p.stop_ids().empty()) << name;
    for (const int32_t id : p.stop_ids()) EXPECT_LT(id, p.vocab_size()) << name;
  }
}

}  // namespace
}  // namespace idefics
