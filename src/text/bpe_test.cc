#include "text/bpe.h"

#include <gtest/gtest.h>

#include <map>
#include <random>

#include "text/testing.h"

namespace idefics {
namespace {

using testing_text::bpe_model;
using testing_text::byte_vocabulary;

Bpe parse(const json::object& model) { return Bpe::parse(JsonObject(model, "model")); }

std::vector<int32_t> encode(const Bpe& bpe, std::string_view piece) {
  Bpe::Scratch scratch;
  std::vector<int32_t> ids;
  bpe.encode(piece, scratch, ids);
  return ids;
}

std::string error_of(const json::object& model) {
  try {
    parse(model);
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kBadModel);
    return e.what();
  }
  return "no error";
}

using Ids = std::vector<int32_t>;

TEST(Bpe, every_byte_is_a_token) {
  const Bpe bpe = parse(bpe_model(byte_vocabulary()));
  std::string all;
  Ids wanted;
  for (int byte = 0; byte < 256; ++byte) {
    all.push_back(static_cast<char>(byte));
    wanted.push_back(byte);
  }
  EXPECT_EQ(encode(bpe, all), wanted);
  EXPECT_EQ(encode(bpe, ""), Ids{});
}

TEST(Bpe, the_lowest_rank_merges_first_and_the_leftmost_among_equals) {
  const Bpe bpe = parse(bpe_model(byte_vocabulary({"bc", "ab", "aa", "abc"}), {"b c", "a b", "a a"}));
  EXPECT_EQ(encode(bpe, "abc"), (Ids{'a', 256}));  // "abc" is in the vocabulary, but no merge makes it
  EXPECT_EQ(encode(bpe, "abab"), (Ids{257, 257}));
  EXPECT_EQ(encode(bpe, "aaa"), (Ids{258, 'a'}));
  EXPECT_EQ(encode(bpe, "aaab"), (Ids{258, 257}));
}

TEST(Bpe, merges_come_in_two_spellings) {
  json::object model = bpe_model(byte_vocabulary({"ab"}));
  model["merges"] = parse_json(R"([["a", "b"]])", "test");
  EXPECT_EQ(encode(parse(model), "ab"), Ids{256});
  model["merges"] = json::array{"a b"};
  EXPECT_EQ(encode(parse(model), "ab"), Ids{256});
}

TEST(Bpe, ignore_merges_takes_a_whole_piece_from_the_vocabulary) {
  json::object model = bpe_model(byte_vocabulary({"xyz"}));
  EXPECT_EQ(encode(parse(model), "xyz"), (Ids{'x', 'y', 'z'}));
  model["ignore_merges"] = true;
  EXPECT_EQ(encode(parse(model), "xyz"), Ids{256});
  EXPECT_EQ(encode(parse(model), "xyzx"), (Ids{'x', 'y', 'z', 'x'}));
}

TEST(Bpe, a_reserved_token_is_not_taken_as_a_whole) {
  json::object model = bpe_model(byte_vocabulary({"xyz"}));
  model["ignore_merges"] = true;
  Bpe bpe = parse(model);
  bpe.reserve(256);
  EXPECT_EQ(encode(bpe, "xyz"), (Ids{'x', 'y', 'z'}));
}

TEST(Bpe, bytes_without_a_token_are_unknown_or_left_out) {
  json::object vocab{{"a", 0}, {"?", 1}, {"b", 2}};
  json::object model = bpe_model(vocab);
  EXPECT_EQ(encode(parse(model), "axyb"), (Ids{0, 2}));
  model["unk_token"] = "?";
  EXPECT_EQ(encode(parse(model), "axyb"), (Ids{0, 1, 1, 2}));
  model["fuse_unk"] = true;
  EXPECT_EQ(encode(parse(model), "axyb"), (Ids{0, 1, 2}));
  EXPECT_EQ(encode(parse(model), "x?x"), (Ids{1, 1, 1}));  // a token of its own is not fused
}

// The definition, word for word: of all pairs that have a rank, the lowest, leftmost one merges; O(n^2) a merge.
Ids naive(std::string_view piece, const std::map<std::pair<int, int>, std::pair<size_t, int>>& merges) {
  Ids ids;
  for (const char c : piece) ids.push_back(static_cast<uint8_t>(c));
  while (true) {
    size_t best = ids.size(), best_rank = SIZE_MAX;
    for (size_t i = 0; i + 1 < ids.size(); ++i) {
      const auto merge = merges.find({ids[i], ids[i + 1]});
      if (merge == merges.end() || merge->second.first >= best_rank) continue;
      best = i;
      best_rank = merge->second.first;
    }
    if (best == ids.size()) return ids;
    ids[best] = merges.at({ids[best], ids[best + 1]}).second;
    ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(best) + 1);
  }
}

TEST(Bpe, agrees_with_the_definition_on_random_models) {
  std::mt19937 random(1);
  for (int round = 0; round < 60; ++round) {
    json::object vocab = byte_vocabulary();
    std::vector<std::pair<std::string, int>> tokens = {{"a", 'a'}, {"b", 'b'}, {"c", 'c'}};
    std::map<std::pair<int, int>, std::pair<size_t, int>> merges;
    json::array lines;
    for (size_t rank = 0; rank < 40; ++rank) {
      const auto [left, left_id] = tokens[random() % tokens.size()];
      const auto [right, right_id] = tokens[random() % tokens.size()];
      const std::string both = left + right;
      if (!vocab.contains(both)) {
        const auto id = static_cast<int>(vocab.size());
        vocab[both] = id;
        tokens.emplace_back(both, id);
      }
      merges[{left_id, right_id}] = {rank, static_cast<int>(vocab.at(both).to_number<int64_t>())};
      lines.emplace_back(left + " " + right);  // the same pair may come twice: the later rank counts
    }
    json::object model = bpe_model(std::move(vocab));
    model["merges"] = std::move(lines);
    const Bpe bpe = parse(model);
    for (int i = 0; i < 60; ++i) {
      std::string piece;
      for (size_t n = random() % 40; n > 0; --n) piece.push_back(static_cast<char>('a' + random() % 3));
      ASSERT_EQ(encode(bpe, piece), naive(piece, merges)) << piece << " round " << round;
    }
  }
}

TEST(Bpe, refuses_damaged_models_and_says_what_is_wrong) {
  const auto with = [](std::string_view key, const json::value& value) {
    json::object model = bpe_model(byte_vocabulary({"ab"}), {"a b"});
    model[key] = value;
    return error_of(model);
  };
  const auto contains = [](const std::string& text, std::string_view part) {
    return text.find(part) != std::string::npos;
  };
  EXPECT_PRED2(contains, with("type", "Unigram"), "type is \"Unigram\"");
  EXPECT_PRED2(contains, with("dropout", 0.1), "dropout is set");
  EXPECT_PRED2(contains, with("byte_fallback", true), "byte_fallback is true");
  EXPECT_PRED2(contains, with("end_of_word_suffix", "</w>"), "end_of_word_suffix is set");
  EXPECT_PRED2(contains, with("continuing_subword_prefix", "##"), "continuing_subword_prefix is set");
  EXPECT_PRED2(contains, with("unk_token", "<unk>"), "unk_token is \"<unk>\", which is not in the vocabulary");
  EXPECT_PRED2(contains, with("vocab", nullptr), "vocab is missing");
  EXPECT_PRED2(contains, with("vocab", json::array{}), "vocab is an array");
  EXPECT_PRED2(contains, with("merges", nullptr), "merges is missing");
  EXPECT_PRED2(contains, with("merges", json::array{"a x"}), "merges[0] needs the token \"ax\"");
  EXPECT_PRED2(contains, with("merges", json::array{"a b", "zz b"}), "merges[1] needs the token \"zz\"");
  EXPECT_PRED2(contains, with("merges", parse_json(R"([["a", "ab"]])", "test")), "merges[0] needs the token \"aab\"");
  for (const json::value& bad :
       {json::value("ab"), json::value("a b c"), json::value(" b"), json::value("a "), json::value(json::array{"a"}),
        json::value(json::array{"a", 1}), json::value(json::array{"a", ""}), json::value(7), json::value(nullptr)}) {
    EXPECT_PRED2(contains, with("merges", json::array{bad}), "merges[0] is ") << describe(bad);
  }
  for (const json::value& bad :
       {json::value(-1), json::value(Vocabulary::kMaxId + 1), json::value(1e3), json::value("1"),
        json::value(uint64_t{1} << 63), json::value(nullptr), json::value(json::object{})}) {
    EXPECT_PRED2(contains, with("vocab", json::object{{"a", 0}, {"b", bad}}), "the id of \"b\" is") << describe(bad);
  }
  EXPECT_PRED2(contains, with("vocab", json::object{{"a", 0}, {"b", 0}}), "two tokens have the id 0");
}

TEST(Bpe, ids_need_not_be_dense) {
  const Bpe bpe = parse(bpe_model({{"a", 5}, {"b", Vocabulary::kMaxId}}));
  EXPECT_EQ(encode(bpe, "ab"), (Ids{5, Vocabulary::kMaxId}));
  EXPECT_EQ(bpe.vocabulary().size(), Vocabulary::kMaxId + 1);
  EXPECT_FALSE(bpe.vocabulary().has(6));
  EXPECT_EQ(bpe.vocabulary().bytes(6), "");
  EXPECT_EQ(bpe.vocabulary().bytes(-1), "");
}

}  // namespace
}  // namespace idefics
