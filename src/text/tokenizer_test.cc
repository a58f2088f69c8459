#include "text/tokenizer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <iterator>
#include <random>
#include <thread>

#include "base/files.h"
#include "base/utf8.h"
#include "text/testing.h"

namespace idefics {
namespace {

using testing_text::added_token;
using testing_text::bpe_model;
using testing_text::byte_vocabulary;
using testing_text::tokenizer_json;
using Ids = std::vector<int32_t>;

Tokenizer parse(const json::object& object) { return Tokenizer::parse(json::serialize(object), "tokenizer.json"); }

Tokenizer load(const std::string& family) {
  const std::string path = std::string(IDEFICS_GOLDENS) + "/tokenizer/" + family + "/tokenizer.json";
  return Tokenizer::parse(read_file(path, Tokenizer::kMaxFileBytes), path);
}

json::object small_json() {
  json::object model = bpe_model(byte_vocabulary({"ab", "Ġa"}), {"a b", "Ġ a"});
  return tokenizer_json(std::move(model),
                        {added_token(258, "<s>", {"special"}), added_token(300, "<n>", {"normalized"})});
}

std::string error_of(std::string_view text) {
  try {
    Tokenizer::parse(text, "x/tokenizer.json");
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kBadModel);
    return e.what();
  }
  return "no error";
}

TEST(Tokenizer, text_becomes_ids_and_ids_become_text) {
  const Tokenizer tokenizer = parse(small_json());
  EXPECT_EQ(tokenizer.encode("ab a<s>\n<n>"), (Ids{256, 257, 258, '\n', 300}));
  EXPECT_EQ(tokenizer.encode("<s>", {.untrusted = true}), (Ids{'<', 's', '>'}));
  EXPECT_EQ(tokenizer.decode(Ids{256, 257, 258, '\n', 300}, false), "ab a<s>\n<n>");
  EXPECT_EQ(tokenizer.decode(Ids{256, 257, 258, '\n', 300}, true), "ab a\n<n>");
  EXPECT_EQ(tokenizer.decode(Ids{-1, 'x', 259, 299, 301, INT32_MAX, INT32_MIN}, false), "x");
  EXPECT_EQ(tokenizer.encode(""), Ids{});
}

TEST(Tokenizer, tokens_by_name_and_by_id) {
  const Tokenizer tokenizer = parse(small_json());
  EXPECT_EQ(tokenizer.find_token("<s>"), 258);
  EXPECT_EQ(tokenizer.find_token("Ġa"), 257);
  EXPECT_EQ(tokenizer.find_token(" a"), std::nullopt);
  EXPECT_EQ(tokenizer.find_token("<x>"), std::nullopt);
  EXPECT_TRUE(tokenizer.is_special(258));
  EXPECT_FALSE(tokenizer.is_special(300));
  EXPECT_FALSE(tokenizer.is_special(257));
  EXPECT_FALSE(tokenizer.is_special(-1));
  EXPECT_EQ(tokenizer.token_bytes(257), " a");
  EXPECT_EQ(tokenizer.token_bytes(255), "\xff");
  EXPECT_EQ(tokenizer.token_bytes(258), "<s>");
  EXPECT_EQ(tokenizer.token_bytes(259), "");
  EXPECT_EQ(tokenizer.vocab_size(), 301);
}

// The decoder of the reference reads a token as bytes whenever all of its characters are in the byte alphabet.
TEST(Tokenizer, added_tokens_are_decoded_like_the_others) {
  json::object object = small_json();
  object["added_tokens"].as_array().emplace_back(added_token(301, "Ġé", {}));
  object["added_tokens"].as_array().emplace_back(added_token(302, " é", {}));
  const Tokenizer tokenizer = parse(object);
  EXPECT_EQ(tokenizer.token_bytes(301), " \xe9");
  EXPECT_EQ(tokenizer.token_bytes(302), " é");
}

TEST(Tokenizer, ids_around_a_text) {
  json::object object = small_json();
  const json::object piece{{"SpecialToken", {{"id", "S"}, {"type_id", 0}}}};
  const json::object text{{"Sequence", {{"id", "A"}, {"type_id", 0}}}};
  const json::object special{{"S", {{"id", "S"}, {"ids", json::array{258, 97}}, {"tokens", json::array{"<s>", "a"}}}}};
  const json::object frame{
      {"type", "TemplateProcessing"}, {"single", json::array{piece, text, piece}}, {"special_tokens", special}};
  object["post_processor"] = frame;
  EXPECT_EQ(parse(object).encode("b", {.add_special_tokens = true}), (Ids{258, 97, 'b', 258, 97}));
  EXPECT_EQ(parse(object).encode("b"), Ids{'b'});
  object["post_processor"] =
      json::object{{"type", "Sequence"}, {"processors", json::array{testing_text::byte_level(), frame}}};
  EXPECT_EQ(parse(object).encode("", {.add_special_tokens = true}), (Ids{258, 97, 258, 97}));
}

TEST(Tokenizer, refuses_text_that_is_not_utf8) {
  const Tokenizer tokenizer = parse(small_json());
  for (const std::string_view bad : {"\xff", "a\xc3", "\xed\xa0\x80", "\xc0\x80", "\xf4\x90\x80\x80", "\x80"}) {
    for (const auto& encode : {+[](const Tokenizer&t, std::string_view s) { return t.encode(s); },
                               +[](const Tokenizer&t, std::string_view s) { return t.encode_mixed(s, {}); }}) {
      try {
        encode(tokenizer, bad);
        ADD_FAILURE() << testing::PrintToString(std::string(bad));
      } catch (const Error& e) {
        EXPECT_EQ(e.code(), ErrorCode::kInvalidValue);
      }
    }
  }
  EXPECT_EQ(tokenizer.encode(std::string_view("a\0b", 3)), (Ids{'a', 0, 'b'}));
}

TEST(Tokenizer, refuses_damaged_files_and_says_what_is_wrong) {
  struct Case {
    std::string_view key;
    json::value value;
    std::string_view wanted;
  };
  const json::object frame{{"type", "TemplateProcessing"}};
  const auto processor = [](std::string_view single, std::string_view special = "{}") {
    return parse_json("{\"type\":\"TemplateProcessing\",\"single\":" + std::string(single) +
                          ",\"special_tokens\":" + std::string(special) + "}",
                      "test");
  };
  const std::string s = R"([{"SpecialToken":{"id":"S"}},{"Sequence":{"id":"A"}}])";
  const std::vector<Case> cases = {
      {"normalizer", json::object{{"type", "NFC"}}, "normalizer: type is \"NFC\""},
      {"normalizer", "NFC", "normalizer is \"NFC\", wanted an object"},
      {"decoder", nullptr, "decoder is missing"},
      {"decoder", json::object{{"type", "WordPiece"}}, "decoder: type is \"WordPiece\""},
      {"model", nullptr, "model is missing"},
      {"model", json::array{}, "model is an array"},
      {"pre_tokenizer", nullptr, "pre_tokenizer is missing"},
      {"pre_tokenizer", 1, "pre_tokenizer: wanted a JSON object"},
      {"added_tokens", json::object{}, "added_tokens is"},
      {"post_processor", json::object{{"type", "BertProcessing"}}, "post_processor: type is \"BertProcessing\""},
      {"post_processor", json::object{{"type", "Sequence"}}, "processors is missing"},
      {"post_processor", frame, "single is missing"},
      {"post_processor", processor("[]"), "holds the text 0 times"},
      {"post_processor", processor(R"([{"Sequence":{"id":"A"}},{"Sequence":{"id":"A"}}])"), "holds the text 2 times"},
      {"post_processor", processor(R"([{"Sequence":{"id":"B"}}])"), "wanted SpecialToken or Sequence A"},
      {"post_processor", processor(s), "has no ids for \"S\""},
      {"post_processor", processor(s, R"({"S":{"ids":["a"]}})"), "ids holds \"a\""},
      {"post_processor", processor(s, R"({"S":{"ids":[259]}})"), "puts the id 259 around texts, which is no token"},
      {"post_processor", processor(s, R"({"S":{"ids":[99999999999]}})"), "ids holds 99999999999"},
  };
  for (const Case& c : cases) {
    json::object object = small_json();
    object[c.key] = c.value;
    const std::string error = error_of(json::serialize(object));
    EXPECT_NE(error.find(c.wanted), std::string::npos) << c.key << ": " << error;
    EXPECT_EQ(error.find('\n'), std::string::npos) << error;
    EXPECT_TRUE(error.starts_with("x/tokenizer.json")) << error;
  }
  for (const std::string_view text : {"", "{", "[]", "null", "\"\"", "{}", "{\"model\":{\"vocab\":{\"\xff\":1}}}",
                                      R"({"model":{"vocab":{"\ud800":1}}})", "\xef\xbb\xbf{}"}) {
    EXPECT_NE(error_of(text), "no error") << text;
  }
  EXPECT_NE(error_of(std::string(100000, '[')), "no error");
  std::string nested = R"({"type":"ByteLevel"})";
  for (int i = 0; i < 200; ++i) nested = R"({"type":"Sequence","pretokenizers":[)" + nested + "]}";
  EXPECT_NE(error_of(R"({"pre_tokenizer":)" + nested + "}"), "no error");
}

TEST(Tokenizer, ids_around_a_text_are_limited) {
  json::object object = small_json();
  json::array ids(1000, json::value(97));
  object["post_processor"] = parse_json(
      R"({"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"S"}},{"Sequence":{"id":"A"}}],"special_tokens":{"S":{"ids":)" +
          json::serialize(ids) + "}}}",
      "test");
  EXPECT_NE(error_of(json::serialize(object)).find("more than 64 ids"), std::string::npos);
}

// Random Unicode text with control tokens, digits and white space in it.
std::string random_text(std::mt19937& random, const std::vector<std::string>& specials) {
  std::string text;
  for (size_t n = random() % 12; n > 0; --n) {
    switch (random() % 8) {
      case 0: text += specials[random() % specials.size()]; break;
      case 1: text += " \n\t\r"[random() % 4]; break;
      case 2: text += "0123456789"[random() % 10]; break;
      case 3: text += "<|>_"[random() % 4]; break;
      case 4: {
        const char32_t c = random() % 0x110000;
        append_utf8(text, c >= 0xd800 && c < 0xe000 ? U'?' : c);
        break;
      }
      default: text += static_cast<char>('a' + random() % 26);
    }
  }
  return text;
}

class Family : public testing::TestWithParam<std::string> {
 protected:
  Family() : tokenizer(load(GetParam())) {
    for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
      const std::string bytes = tokenizer.token_bytes(id);
      if (tokenizer.is_special(id)) specials.push_back(bytes);
      if (bytes.size() == 1) byte_tokens.push_back(id);
      if (bytes.size() == 1) known[static_cast<uint8_t>(bytes[0])] = true;
    }
  }
  // What is left of a text: bytes without a token are dropped, as the reference does (SmolLM2's vocabulary lacks 21).
  std::string representable(const std::string& text) const {
    std::string left;
    std::copy_if(text.begin(), text.end(), std::back_inserter(left),
                 [&](char c) { return known[static_cast<uint8_t>(c)]; });
    return repair_utf8(left);
  }

  const Tokenizer tokenizer;
  std::vector<std::string> specials;
  Ids byte_tokens;  // most of them are parts of characters
  std::array<bool, 256> known{};
};

TEST_P(Family, text_survives_encoding_and_decoding) {
  std::mt19937 random(1);
  for (int i = 0; i < 10000; ++i) {
    const std::string text = random_text(random, specials);
    ASSERT_EQ(tokenizer.decode(tokenizer.encode(text), false), representable(text));
    ASSERT_EQ(tokenizer.decode(tokenizer.encode(text, {.untrusted = true}), true), representable(text));
  }
}

TEST_P(Family, users_cannot_write_control_tokens) {
  const auto num_special = [&](const Ids& ids) {
    return std::count_if(ids.begin(), ids.end(), [&](int32_t id) { return tokenizer.is_special(id); });
  };
  const auto check = [&](const std::string& text) {
    ASSERT_EQ(num_special(tokenizer.encode(text, {.untrusted = true})), 0) << text;
    const std::string chat = specials[0] + text + specials[1] + text;
    const TextRange ranges[] = {{specials[0].size(), specials[0].size() + text.size()},
                                {chat.size() - text.size(), chat.size()}};
    const Ids ids = tokenizer.encode_mixed(chat, ranges);
    ASSERT_EQ(num_special(ids), 2) << chat;
    ASSERT_EQ(tokenizer.decode(ids, false), representable(chat));
  };
  for (const std::string& name : specials) check(name);
  std::mt19937 random(2);
  for (int i = 0; i < 10000; ++i) check(random_text(random, specials));
}

TEST_P(Family, streams_equal_the_whole_at_every_split) {
  std::mt19937 random(3);
  const int32_t size = tokenizer.vocab_size();
  for (int i = 0; i < 10000; ++i) {
    Ids ids;
    for (size_t n = random() % 12; n > 0; --n) {
      const int32_t any = static_cast<int32_t>(random() % static_cast<uint32_t>(size + 10)) - 5;
      ids.push_back(random() % 3 != 0 ? byte_tokens[random() % byte_tokens.size()] : any);
    }
    const bool skip = i % 2 == 0;
    StreamDecoder stream(tokenizer, skip);
    std::string text;
    for (const int32_t id : ids) {
      const std::string more = stream.push(id);
      ASSERT_TRUE(is_utf8(more));
      text += more;
    }
    text += stream.finish();
    ASSERT_EQ(text, tokenizer.decode(ids, skip));
  }
}

// Threat: text without a place to cut. Quadratic work would take minutes here.
TEST_P(Family, long_text_without_a_cut_is_quick) {
  for (const std::string unit : {"a", " ", "\n", "1", "!", "日", "😀", "ab", "<", "<row_1_col_", "\u0301", " \n"}) {
    std::string text;
    while (text.size() < (size_t{1} << 18)) text += unit;
    const auto start = std::chrono::steady_clock::now();
    const Ids ids = tokenizer.encode(text);
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(5)) << unit;
    EXPECT_EQ(tokenizer.decode(ids, false), text);
  }
}

INSTANTIATE_TEST_SUITE_P(Families, Family, testing::Values("smolvlm", "llama3", "granite"),
                         [](const auto& family) { return family.param; });

TEST(StreamDecoder, holds_back_what_may_become_a_character) {
  const Tokenizer tokenizer = parse(small_json());
  StreamDecoder stream(tokenizer, false);
  EXPECT_EQ(stream.push(0xf0), "");
  EXPECT_EQ(stream.push(0x9f), "");
  EXPECT_EQ(stream.push(0x98), "");
  EXPECT_EQ(stream.push(0x80), "😀");
  EXPECT_EQ(stream.push(0xe6), "");
  EXPECT_EQ(stream.push('a'), "\ufffda");
  EXPECT_EQ(stream.push(0x80), "\ufffd");
  EXPECT_EQ(stream.push(0xc3), "");
  EXPECT_EQ(stream.finish(), "\ufffd");
  EXPECT_EQ(stream.finish(), "");
  EXPECT_EQ(stream.push('b'), "b");
}

TEST(StreamDecoder, special_tokens_are_left_out_if_wished) {
  const Tokenizer tokenizer = parse(small_json());
  StreamDecoder skipping(tokenizer, true), keeping(tokenizer, false);
  EXPECT_EQ(skipping.push(258), "");
  EXPECT_EQ(skipping.push(300), "<n>");
  EXPECT_EQ(keeping.push(258), "<s>");
}

TEST(Tokenizer, threads_may_share_it) {
  const Tokenizer tokenizer = load("smolvlm");
  const std::string text = "The quick brown fox jumps over 13 lazy dogs. <image>\n\n日本語 👍🏽";
  const Ids wanted = tokenizer.encode(text);
  std::vector<std::thread> threads;
  std::atomic<int> wrong = 0;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int k = 0; k < 500; ++k)
        wrong += tokenizer.encode(text) != wanted || tokenizer.decode(wanted, false) != text;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

}  // namespace
}  // namespace idefics
