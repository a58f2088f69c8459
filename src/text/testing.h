// For tests: tokenizer.json texts made by hand.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>

#include "base/json.h"
#include "base/utf8.h"
#include "text/byte_level.h"

namespace idefics::testing_text {

// The 256 bytes as the first ids, then `more`.
inline json::object byte_vocabulary(std::initializer_list<std::string_view> more = {}) {
  json::object vocab;
  for (int byte = 0; byte < 256; ++byte) {
    std::string spelled;
    append_utf8(spelled, spelling_of_byte(static_cast<uint8_t>(byte)));
    vocab[spelled] = byte;
  }
  for (const std::string_view token : more) {
    const auto id = static_cast<int64_t>(vocab.size());
    vocab[token] = id;
  }
  return vocab;
}

inline json::object bpe_model(json::object vocab, std::initializer_list<std::string_view> merges = {}) {
  json::array lines;
  for (const std::string_view merge : merges) lines.emplace_back(merge);
  return {{"type", "BPE"}, {"vocab", std::move(vocab)}, {"merges", std::move(lines)}};
}

inline json::object byte_level() {
  return {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}};
}

inline json::object added_token(int id, std::string_view content, std::initializer_list<std::string_view> flags) {
  json::object token{{"id", id}, {"content", content}};
  for (const char* flag : {"single_word", "lstrip", "rstrip", "normalized", "special"}) token[flag] = false;
  for (const std::string_view flag : flags) token[flag] = true;
  return token;
}

// Everything a tokenizer.json needs.
inline json::object tokenizer_json(json::object model, json::array added_tokens = {}) {
  return {{"version", "1.0"},          {"added_tokens", std::move(added_tokens)},
          {"normalizer", nullptr},     {"pre_tokenizer", byte_level()},
          {"post_processor", nullptr}, {"decoder", byte_level()},
          {"model", std::move(model)}};
}

}  // namespace idefics::testing_text
