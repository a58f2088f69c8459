#include "engine/output_text.h"

#include <gtest/gtest.h>

#include <random>

#include "base/files.h"

namespace idefics {
namespace {

const Tokenizer& tokenizer() {
  static const Tokenizer t = [] {
    const std::string path = std::string(IDEFICS_SOURCE_DIR) + "/models/tiny-cards/tokenizer.json";
    return Tokenizer::parse(read_file(path, Tokenizer::kMaxFileBytes), path);
  }();
  return t;
}

// The pieces that come out for a text, and whether it stopped.
struct Outcome {
  std::vector<std::string> pieces;
  std::string text;
  bool stopped;
};

Outcome run(const std::vector<int32_t>& ids, bool skip, std::vector<std::string> stop) {
  OutputText out(tokenizer(), skip, std::move(stop));
  Outcome o{{}, "", false};
  const auto take = [&](std::string piece) {
    if (piece.empty()) return;
    o.text += piece;
    o.pieces.push_back(std::move(piece));
  };
  for (const int32_t id : ids) {
    take(out.push(id));
    if (out.stopped()) break;
  }
  take(out.finish());
  o.stopped = out.stopped();
  return o;
}

TEST(OutputText, without_stop_strings_it_is_the_decoded_text) {
  const std::string text = "Grün ist \xf0\x9f\x91\x8d schön.<end_of_utterance>";
  const auto ids = tokenizer().encode(text);
  EXPECT_EQ(run(ids, false, {}).text, text);
  EXPECT_EQ(run(ids, true, {}).text, tokenizer().decode(ids, true));
}

TEST(OutputText, a_stop_string_ends_the_text_before_it_wherever_tokens_end) {
  const std::string text = "one two three four";
  const auto ids = tokenizer().encode(text);
  for (size_t at = 1; at + 3 <= text.size(); ++at) {
    const std::string stop = text.substr(at, 3);
    const Outcome o = run(ids, true, {"never", stop});
    EXPECT_TRUE(o.stopped) << stop;
    EXPECT_EQ(o.text, text.substr(0, text.find(stop))) << stop;
  }
}

TEST(OutputText, what_could_become_a_stop_string_is_held_back_and_given_out_at_the_end) {
  const auto ids = tokenizer().encode("a b c STO");
  OutputText out(tokenizer(), true, {"STOP"});
  std::string before;
  for (const int32_t id : ids) before += out.push(id);
  EXPECT_EQ(before, "a b c ");
  EXPECT_EQ(out.finish(), "STO");
  EXPECT_FALSE(out.stopped());
}

TEST(OutputText, special_tokens_count_for_stop_strings_even_when_they_are_not_shown) {
  const auto ids = tokenizer().encode("yes<end_of_utterance>no<end_of_utterance>");
  EXPECT_EQ(run(ids, true, {"<end_of_utterance>no"}).text, "yes");
  EXPECT_EQ(run(ids, true, {"s<end_of_utt"}).text, "ye");
  EXPECT_EQ(run(ids, true, {"o<end_of_utt"}).text, "yesn");
  EXPECT_EQ(run(ids, false, {"no"}).text, "yes<end_of_utterance>");
}

TEST(OutputText, random_ids_give_the_same_text_in_pieces_and_at_once) {
  std::mt19937 generator(5);
  std::uniform_int_distribution<int32_t> any(0, tokenizer().vocab_size() - 1);
  for (int round = 0; round < 500; ++round) {
    std::vector<int32_t> ids(20);
    for (int32_t& id : ids) id = any(generator);
    const std::string full = tokenizer().decode(ids, false);
    const std::string stop = full.substr(full.size() / 2, 4);
    EXPECT_EQ(run(ids, false, {}).text, full);
    EXPECT_EQ(run(ids, true, {"\x01\x02\x03"}).text, tokenizer().decode(ids, true));
    if (!stop.empty()) {
      EXPECT_EQ(run(ids, false, {stop}).text, full.substr(0, full.find(stop)));
    }
  }
}

}  // namespace
}  // namespace idefics
