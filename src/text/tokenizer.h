// Text ↔ ids, as a tokenizer.json of the byte-level BPE family says.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/text_range.h"

namespace idefics {

// The pipeline: added tokens are found in the raw text; what is left between them is cut into pieces (pre-tokenizer);
// each piece becomes ids (BPE); ids around the whole come from the post-processor. Supported is what the family uses:
//   normalizer null; pre_tokenizer Sequence, Digits, Split, ByteLevel (last); model BPE;
//   post_processor null, TemplateProcessing, ByteLevel, Sequence; decoder ByteLevel.
// All else is refused by name. `truncation` and `padding` are ignored, as transformers does.
//
//   const Tokenizer tokenizer = Tokenizer::parse(read_file(path, Tokenizer::kMaxFileBytes), path.string());
//   std::vector<int32_t> ids = tokenizer.encode("Hello, world!");
//
// Copies share their tables. Threads: all members are const and may be called from any thread.
class Tokenizer {
 public:
  static constexpr uint64_t kMaxFileBytes = uint64_t{64} << 20;
  static constexpr size_t kMaxTextBytes = size_t{64} << 20;

  // From the text of a tokenizer.json, which `where` names in errors. Errors: kBadModel.
  static Tokenizer parse(std::string_view tokenizer_json, std::string_view where);

  struct EncodeOptions {
    bool add_special_tokens = false;  // what the post-processor puts around the text, e.g. <|begin_of_text|>
    // Added tokens that are special (control tokens, image placeholders) are ordinary text: none of them comes out.
    // Added tokens that are not special are still found.
    bool untrusted = false;
  };
  // The ids of a text. Errors: kInvalidValue when it is not UTF-8, when it is longer than kMaxTextBytes, or when the
  // split expression of the tokenizer backtracks without end on it.
  // Cost: linear in the text but for pieces without end, which are O(n log n).
  std::vector<int32_t> encode(std::string_view text, const EncodeOptions& options) const;
  std::vector<int32_t> encode(std::string_view text) const { return encode(text, EncodeOptions{}); }
  // The ids of a rendered chat in which the ranges `untrusted` (sorted, disjoint, ends at characters) came from a user.
  // A special token that lies wholly in them becomes ordinary text, encoded on its own; any other is the control token.
  // Ranges that touch count as one. Errors: as encode.
  std::vector<int32_t> encode_mixed(std::string_view text, std::span<const TextRange> untrusted) const;

  // The text of ids: the bytes of all tokens together, with every ill-formed part replaced by U+FFFD. Unknown ids and,
  // if wished, special ones are left out.
  std::string decode(std::span<const int32_t> ids, bool skip_special_tokens) const;

  // The id of a token as tokenizer.json spells it (an added token's text, or "Ġthe"); an added token comes first.
  std::optional<int32_t> find_token(std::string_view content) const;
  // Whether `id` is an added token that is special.
  bool is_special(int32_t id) const;
  // The bytes that decode() writes for a token; empty for unknown ids.
  std::string token_bytes(int32_t id) const;
  // The largest id + 1, added tokens included.
  int32_t vocab_size() const;

 private:
  struct Tables;
  explicit Tokenizer(std::shared_ptr<const Tables> tables) : tables_(std::move(tables)) {}
  std::string_view view_bytes(int32_t id) const;
  friend class StreamDecoder;

  std::shared_ptr<const Tables> tables_;
};

// Decodes ids as they come. What push() and finish() return, one after the other, is what decode() makes of all ids.
// A character that is not complete yet is held back (at most 3 bytes), never written in halves.
// Threads: one at a time.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer, bool skip_special_tokens)
      : tokenizer_(tokenizer), skip_special_tokens_(skip_special_tokens) {}

  // The text that is certain now; often empty.
  std::string push(int32_t id);
  // The rest: U+FFFD when the ids end inside of a character. The decoder is as new afterwards.
  std::string finish();

 private:
  Tokenizer tokenizer_;
  bool skip_special_tokens_;
  std::string pending_;
};

}  // namespace idefics
