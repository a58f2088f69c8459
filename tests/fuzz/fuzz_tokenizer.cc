// The first byte chooses: 0 parses the rest as a tokenizer.json and uses what loads; other values encode and decode the
// rest as text and as ids with one of the recorded tokenizers.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "base/files.h"
#include "base/utf8.h"
#include "text/tokenizer.h"

namespace {

using idefics::Tokenizer;

Tokenizer load(const std::string& name) {
  const std::string path = std::string(IDEFICS_GOLDENS) + "/tokenizer/" + name;
  return Tokenizer::parse(idefics::read_file(path, Tokenizer::kMaxFileBytes), path);
}

void decode(const Tokenizer& tokenizer, const std::vector<int32_t>& ids) {
  for (const bool skip : {false, true}) {
    idefics::StreamDecoder stream(tokenizer, skip);
    std::string text;
    for (const int32_t id : ids) {
      const std::string more = stream.push(id);
      IDEFICS_CHECK(idefics::is_utf8(more));
      text += more;
    }
    text += stream.finish();
    IDEFICS_CHECK(text == tokenizer.decode(ids, skip));
  }
}

// `lossless`: every byte has a token and no token swallows white space.
void encode(const Tokenizer& tokenizer, std::string_view text, bool lossless) {
  const size_t third = text.size() / 3;
  const idefics::TextRange ranges[] = {{third / 2, third}, {third, 2 * third}};
  const auto trusted = tokenizer.encode(text, {.add_special_tokens = true});
  const auto untrusted = tokenizer.encode(text, {.untrusted = true});
  const auto mixed = tokenizer.encode_mixed(text, ranges);
  for (const auto* ids : {&trusted, &untrusted, &mixed}) {
    for (const int32_t id : *ids) IDEFICS_CHECK(id >= 0 && id < tokenizer.vocab_size());
    decode(tokenizer, *ids);
  }
  if (!lossless) return;
  for (const int32_t id : untrusted) IDEFICS_CHECK(!tokenizer.is_special(id));
  IDEFICS_CHECK(tokenizer.decode(untrusted, true) == text);
  IDEFICS_CHECK(tokenizer.decode(mixed, false) == text);
}

void use_file(std::string_view json) {
  const Tokenizer tokenizer = Tokenizer::parse(json, "fuzz");
  for (const std::string_view text :
       {"ab <s>12 \xc3\xa9's\n\n  x", "aaaaaaaaaaaaaaaa", "", "\t<|a|>\xf0\x9f\x98\x80"}) {
    try {
      encode(tokenizer, text, false);
    } catch (const idefics::Error&) {
      // the file's split expression may be too costly
    }
  }
  std::vector<int32_t> ids = {-1, INT32_MAX};
  for (int32_t id = 0; id < tokenizer.vocab_size() && id < 1000; ++id) ids.push_back(id);
  decode(tokenizer, ids);
}

void use_text(uint8_t choice, std::string_view bytes) {
  static const Tokenizer tokenizers[] = {load("llama3/tokenizer.json"), load("granite/tokenizer.json"),
                                         load("flags.tokenizer.json")};
  const size_t which = choice % 3;
  std::vector<int32_t> ids;
  for (size_t i = 0; i + 1 < bytes.size(); i += 2) {
    ids.push_back(static_cast<uint8_t>(bytes[i]) | (static_cast<uint8_t>(bytes[i + 1]) & 7) << 8);
  }
  decode(tokenizers[which], ids);
  encode(tokenizers[which], bytes, which != 2);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view rest(reinterpret_cast<const char*>(data) + 1, size - 1);
  try {
    if (data[0] == 0) {
      use_file(rest);
    } else {
      use_text(data[0], rest);
    }
  } catch (const idefics::Error&) {
  }
  return 0;
}
