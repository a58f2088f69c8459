#include "text/tokenizer.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/check.h"
#include "base/json.h"
#include "base/utf8.h"
#include "text/added_tokens.h"
#include "text/bpe.h"
#include "text/byte_level.h"
#include "text/pre_tokenizer.h"

namespace idefics {

namespace {

constexpr size_t kMaxFrame = 64;  // ids before or after a text; known post-processors have one

// What the post-processor puts around a text.
struct Frame {
  std::vector<int32_t> before, after;
};

std::string type_of(const JsonObject& object) { return object.find_string("type").value_or(""); }

// The ids of {"SpecialToken": {"id": name}}, which the map `special_tokens` holds.
std::vector<int32_t> special_ids(const JsonObject& processor, const JsonObject& token) {
  const std::string name = token.find_string("id").value_or("");
  const auto map = processor.find_object("special_tokens");
  const auto entry = map ? map->find_object(name) : std::nullopt;
  const json::array* ids = entry ? entry->find_array("ids") : nullptr;
  if (ids == nullptr) processor.fail("special_tokens", fmt::format("has no ids for {}", describe(json::value(name))));
  std::vector<int32_t> result;
  for (const json::value& id : *ids) {
    const int64_t* number = id.if_int64();
    if (number == nullptr || *number < 0 || *number > Vocabulary::kMaxId) {
      entry->fail("ids", fmt::format("holds {}, wanted whole numbers from 0 to {}", describe(id), Vocabulary::kMaxId));
    }
    result.push_back(static_cast<int32_t>(*number));
  }
  return result;
}

Frame parse_template(const JsonObject& processor) {
  const json::array* single = processor.find_array("single");
  if (single == nullptr) processor.fail("single", "is missing");
  Frame frame;
  int texts = 0;
  for (const json::value& value : *single) {
    const JsonObject piece = JsonObject::of(value, processor.name() + ": single");
    if (const auto token = piece.find_object("SpecialToken")) {
      auto& ids = texts == 0 ? frame.before : frame.after;
      for (const int32_t id : special_ids(processor, *token)) ids.push_back(id);
    } else if (const auto text = piece.find_object("Sequence"); text && text->find_string("id") == "A") {
      ++texts;
    } else {
      processor.fail("single", fmt::format("holds {}, wanted SpecialToken or Sequence A", describe(value)));
    }
  }
  if (texts != 1) processor.fail("single", fmt::format("holds the text {} times, wanted once", texts));
  return frame;
}

// Later processors put their ids around what the earlier ones made.
void parse_post_processor(const json::value& value, const std::string& name, Frame& frame) {
  const JsonObject object = JsonObject::of(value, name);
  const std::string type = type_of(object);
  if (type == "ByteLevel") return;  // moves offsets only
  if (type == "Sequence") {
    const json::array* parts = object.find_array("processors");
    if (parts == nullptr) object.fail("processors", "is missing");
    for (size_t i = 0; i < parts->size(); ++i) {
      parse_post_processor((*parts)[i], fmt::format("{}: processors[{}]", name, i), frame);
    }
  } else if (type == "TemplateProcessing") {
    const Frame outer = parse_template(object);
    frame.before.insert(frame.before.begin(), outer.before.begin(), outer.before.end());
    frame.after.insert(frame.after.end(), outer.after.begin(), outer.after.end());
    if (std::max(frame.before.size(), frame.after.size()) > kMaxFrame) {
      object.fail("single", fmt::format("puts more than {} ids before or after a text", kMaxFrame));
    }
  } else {
    object.fail("type", fmt::format("is {}, supported are TemplateProcessing, ByteLevel and Sequence",
                                    describe(json::value(type))));
  }
}

void refuse_unsupported(const JsonObject& root) {
  if (const auto normalizer = root.find_object("normalizer")) {
    normalizer->fail("type", fmt::format("is {}, only a tokenizer without normalizer is supported",
                                         describe(json::value(type_of(*normalizer)))));
  }
  const auto decoder = root.find_object("decoder");
  if (!decoder) root.fail("decoder", "is missing, only ByteLevel is supported");
  if (type_of(*decoder) != "ByteLevel") {
    decoder->fail("type", fmt::format("is {}, only ByteLevel is supported", describe(json::value(type_of(*decoder)))));
  }
}

}  // namespace

struct Tokenizer::Tables {
  Bpe bpe;
  PreTokenizer pre_tokenizer;
  AddedTokens added;
  Frame frame;
  std::vector<std::string> added_bytes;  // by index in added
  std::vector<int32_t> added_index;      // by id: index in added, or -1

  int32_t vocab_size() const { return static_cast<int32_t>(added_index.size()); }
  const AddedToken* find_added(int32_t id) const {
    const int32_t index = id < 0 || id >= vocab_size() ? -1 : added_index[static_cast<size_t>(id)];
    return index < 0 ? nullptr : &added.all()[static_cast<size_t>(index)];
  }
  void index_added_tokens();
  void check_frame(const std::string& name) const;
  std::vector<int32_t> encode(std::string_view text, const Trust& trust) const;
};

void Tokenizer::Tables::index_added_tokens() {
  int32_t size = bpe.vocabulary().size();
  for (const AddedToken& token : added.all()) size = std::max(size, token.id + 1);
  added_index.assign(static_cast<size_t>(size), -1);
  for (const AddedToken& token : added.all()) {
    added_index[static_cast<size_t>(token.id)] = static_cast<int32_t>(added_bytes.size());
    added_bytes.push_back(decode_spelled(token.content));
    if (token.special) bpe.reserve(token.id);
  }
}

void Tokenizer::Tables::check_frame(const std::string& name) const {
  for (const auto* ids : {&frame.before, &frame.after}) {
    for (const int32_t id : *ids) {
      if (bpe.vocabulary().has(id) || find_added(id) != nullptr) continue;
      throw Error(ErrorCode::kBadModel, fmt::format("{}: puts the id {} around texts, which is no token", name, id));
    }
  }
}

std::vector<int32_t> Tokenizer::Tables::encode(std::string_view text, const Trust& trust) const {
  if (text.size() > kMaxTextBytes) {
    throw Error(ErrorCode::kInvalidValue,
                fmt::format("text: has {} bytes, at most {} can be encoded at once", text.size(), kMaxTextBytes));
  }
  if (!is_utf8(text)) throw Error(ErrorCode::kInvalidValue, "text: is not valid UTF-8; send well-formed UTF-8");
  std::vector<int32_t> ids;
  PreTokenizer::Scratch pieces;
  Bpe::Scratch symbols;
  for (const Segment& segment : added.split(text, trust)) {
    if (segment.token != nullptr) {
      ids.push_back(segment.token->id);
      continue;
    }
    for (const std::string_view piece :
         pre_tokenizer.split(text.substr(segment.begin, segment.end - segment.begin), pieces)) {
      bpe.encode(piece, symbols, ids);
    }
  }
  return ids;
}

Tokenizer Tokenizer::parse(std::string_view tokenizer_json, std::string_view where) {
  if (tokenizer_json.size() > kMaxFileBytes) {
    throw Error(ErrorCode::kBadModel,
                fmt::format("{}: has {} bytes, at most {} are supported", where, tokenizer_json.size(), kMaxFileBytes));
  }
  const json::value value = parse_json(tokenizer_json, where);
  const JsonObject root = JsonObject::of(value, std::string(where));
  refuse_unsupported(root);
  const auto model = root.find_object("model");
  if (!model) root.fail("model", "is missing");
  const json::value* pre_tokenizer = root.find("pre_tokenizer");
  if (pre_tokenizer == nullptr) root.fail("pre_tokenizer", "is missing, only byte-level BPE is supported");
  const json::array* added = root.find_array("added_tokens");

  Bpe bpe = Bpe::parse(*model);
  AddedTokens added_tokens =
      AddedTokens::parse(added == nullptr ? json::array() : *added, root.name() + ": added_tokens", bpe.vocabulary());
  auto tables = std::make_shared<Tables>(Tables{std::move(bpe),
                                                PreTokenizer::parse(*pre_tokenizer, root.name() + ": pre_tokenizer"),
                                                std::move(added_tokens),
                                                {},
                                                {},
                                                {}});
  tables->index_added_tokens();
  if (const json::value* processor = root.find("post_processor")) {
    const std::string name = root.name() + ": post_processor";
    parse_post_processor(*processor, name, tables->frame);
    tables->check_frame(name);
  }
  return Tokenizer(std::move(tables));
}

std::vector<int32_t> Tokenizer::encode(std::string_view text, const EncodeOptions& options) const {
  std::vector<int32_t> ids = tables_->encode(text, {options.untrusted ? Trust::Kind::kNone : Trust::Kind::kAll, {}});
  if (options.add_special_tokens) {
    const Frame& frame = tables_->frame;
    ids.insert(ids.begin(), frame.before.begin(), frame.before.end());
    ids.insert(ids.end(), frame.after.begin(), frame.after.end());
  }
  return ids;
}

std::vector<int32_t> Tokenizer::encode_mixed(std::string_view text, std::span<const TextRange> untrusted) const {
  size_t end = 0;
  for (const TextRange& range : untrusted) {
    IDEFICS_CHECK(end <= range.begin && range.begin <= range.end && range.end <= text.size());
    end = range.end;
  }
  return tables_->encode(text, {Trust::Kind::kExcept, untrusted});
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special_tokens) const {
  std::string bytes;
  for (const int32_t id : ids) {
    if (!(skip_special_tokens && is_special(id))) bytes += view_bytes(id);
  }
  return repair_utf8(bytes);
}

std::optional<int32_t> Tokenizer::find_token(std::string_view content) const {
  if (const auto id = tables_->added.find(content)) return id;
  return tables_->bpe.vocabulary().find_spelled(content);
}

bool Tokenizer::is_special(int32_t id) const {
  const AddedToken* token = tables_->find_added(id);
  return token != nullptr && token->special;
}

std::string_view Tokenizer::view_bytes(int32_t id) const {
  if (tables_->find_added(id) != nullptr) {
    return tables_->added_bytes[static_cast<size_t>(tables_->added_index[static_cast<size_t>(id)])];
  }
  return tables_->bpe.vocabulary().bytes(id);
}

std::string Tokenizer::token_bytes(int32_t id) const { return std::string(view_bytes(id)); }

int32_t Tokenizer::vocab_size() const { return tables_->vocab_size(); }

std::string StreamDecoder::push(int32_t id) {
  if (skip_special_tokens_ && tokenizer_.is_special(id)) return {};
  pending_ += tokenizer_.view_bytes(id);
  const size_t certain = pending_.size() - incomplete_utf8_tail(pending_);
  std::string text = repair_utf8(std::string_view(pending_).substr(0, certain));
  pending_.erase(0, certain);
  return text;
}

std::string StreamDecoder::finish() {
  std::string text = repair_utf8(pending_);
  pending_.clear();
  return text;
}

}  // namespace idefics
