#include "text/bpe.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>

#include "base/check.h"
#include "text/byte_level.h"

namespace idefics {

namespace {

constexpr uint32_t kEnd = 0xffffffffu;
constexpr size_t kMaxMerges = size_t{1} << 23;

void refuse_unsupported(const JsonObject& model) {
  if (const auto type = model.find_string("type"); type && *type != "BPE") {
    model.fail("type", fmt::format("is \"{}\", only \"BPE\" is supported", *type));
  }
  if (model.find_number("dropout").value_or(0) != 0) model.fail("dropout", "is set, only null is supported");
  if (model.find_bool("byte_fallback").value_or(false)) model.fail("byte_fallback", "is true, only false is supported");
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (!model.find_string(key).value_or("").empty()) model.fail(key, "is set, only null and \"\" are supported");
  }
}

// The two parts of a merge in either spelling, ["a", "b"] or "a b"; nothing when it is neither or a part is empty.
struct Parts {
  std::string_view left, right;
};

std::optional<Parts> find_parts(const json::value& merge) {
  Parts parts;
  if (const json::array* pair = merge.if_array(); pair != nullptr && pair->size() == 2) {
    const json::string* left = (*pair)[0].if_string();
    const json::string* right = (*pair)[1].if_string();
    if (left != nullptr && right != nullptr) parts = {*left, *right};
  } else if (const json::string* line = merge.if_string()) {
    const std::string_view text = *line;
    const size_t blank = text.find(' ');
    if (blank == std::string_view::npos || text.find(' ', blank + 1) != std::string_view::npos) return std::nullopt;
    parts = {text.substr(0, blank), text.substr(blank + 1)};
  }
  if (parts.left.empty() || parts.right.empty()) return std::nullopt;
  return parts;
}

}  // namespace

Bpe Bpe::parse(const JsonObject& model) {
  refuse_unsupported(model);
  const auto vocab = model.find_object("vocab");
  const json::array* merges = model.find_array("merges");
  if (!vocab) model.fail("vocab", "is missing");
  if (merges == nullptr) model.fail("merges", "is missing");
  if (merges->size() > kMaxMerges) {
    model.fail("merges", fmt::format("has {} entries, at most {} are supported", merges->size(), kMaxMerges));
  }
  Bpe bpe(Vocabulary::parse(vocab->raw(), vocab->name()), merges->size());
  bpe.merged_.reserve(merges->size());
  for (const json::value& merge : *merges) bpe.add_merge(merge, model);
  bpe.find_bytes_and_unknown(model);
  bpe.whole_.assign(static_cast<size_t>(bpe.vocabulary_.size()), 1);
  if (!model.find_bool("ignore_merges").value_or(false)) bpe.find_whole_tokens();
  return bpe;
}

void Bpe::add_merge(const json::value& merge, const JsonObject& model) {
  const auto fail = [&](const std::string& problem) { model.fail(fmt::format("merges[{}]", merged_.size()), problem); };
  const auto find = [&](std::string_view token) {
    const auto id = vocabulary_.find_spelled(token);
    if (!id) fail(fmt::format("needs the token {}, which is not in the vocabulary", describe(json::value(token))));
    return *id;
  };
  const auto parts = find_parts(merge);
  if (!parts) fail(fmt::format("is {}, wanted [\"left\", \"right\"] or \"left right\"", describe(merge)));
  const int32_t left = find(parts->left), right = find(parts->right);
  const int32_t both = find(std::string(parts->left).append(parts->right));
  // Of equal pairs the last one counts, as in the reference.
  ranks_.set(static_cast<uint32_t>(left), static_cast<uint32_t>(right), static_cast<uint32_t>(merged_.size()));
  merged_.push_back(both);
}

void Bpe::find_bytes_and_unknown(const JsonObject& model) {
  for (size_t byte = 0; byte < 256; ++byte) {
    const char c = static_cast<char>(byte);
    byte_ids_[byte] = vocabulary_.find_bytes({&c, 1}).value_or(-1);
  }
  if (const auto token = model.find_string("unk_token")) {
    const auto id = vocabulary_.find_spelled(*token);
    if (!id)
      model.fail("unk_token", fmt::format("is {}, which is not in the vocabulary", describe(json::value(*token))));
    unknown_ = *id;
  }
  fuse_unknown_ = model.find_bool("fuse_unk").value_or(false);
}

void Bpe::find_whole_tokens() {
  Scratch scratch;
  for (int32_t id = 0; id < vocabulary_.size(); ++id) {
    const std::string_view bytes = vocabulary_.bytes(id);
    merge(bytes, scratch);
    const auto& symbols = scratch.symbols;
    whole_[static_cast<size_t>(id)] = !symbols.empty() && symbols[0].next == kEnd && symbols[0].id == id;
  }
}

void Bpe::reserve(int32_t id) {
  if (vocabulary_.has(id)) whole_[static_cast<size_t>(id)] = 0;
}

void Bpe::encode(std::string_view piece, Scratch& scratch, std::vector<int32_t>& ids) const {
  IDEFICS_CHECK(piece.size() < kEnd);
  if (const auto id = vocabulary_.find_bytes(piece); id && whole_[static_cast<size_t>(*id)]) {
    ids.push_back(*id);
    return;
  }
  merge(piece, scratch);
  if (scratch.symbols.empty()) return;
  for (uint32_t i = 0; i != kEnd; i = scratch.symbols[i].next) ids.push_back(scratch.symbols[i].id);
}

void Bpe::start(std::string_view piece, Scratch& scratch) const {
  auto& symbols = scratch.symbols;
  symbols.clear();
  bool after_unknown = false;
  for (const char c : piece) {
    int32_t id = byte_ids_[static_cast<uint8_t>(c)];
    const bool unknown = id < 0;
    if (unknown && (unknown_ < 0 || (fuse_unknown_ && after_unknown))) continue;
    if (unknown) id = unknown_;
    after_unknown = unknown;
    const auto i = static_cast<uint32_t>(symbols.size());
    symbols.push_back({id, i == 0 ? kEnd : i - 1, i + 1, IdMap::kNone});
  }
  if (!symbols.empty()) symbols.back().next = kEnd;
}

void Bpe::merge(std::string_view piece, Scratch& scratch) const {
  start(piece, scratch);
  auto& symbols = scratch.symbols;
  auto& heap = scratch.heap;
  heap.clear();
  const auto rank_pair = [&](uint32_t left) {
    Scratch::Symbol& symbol = symbols[left];
    symbol.rank = symbol.next == kEnd
                      ? IdMap::kNone
                      : ranks_.get(static_cast<uint32_t>(symbol.id), static_cast<uint32_t>(symbols[symbol.next].id));
    if (symbol.rank != IdMap::kNone) heap.push_back(uint64_t{symbol.rank} << 32 | left);
    return symbol.rank != IdMap::kNone;
  };
  const auto push_pair = [&](uint32_t left) {
    if (rank_pair(left)) std::push_heap(heap.begin(), heap.end(), std::greater<>());
  };
  for (uint32_t i = 0; i < symbols.size(); ++i) rank_pair(i);
  std::make_heap(heap.begin(), heap.end(), std::greater<>());
  while (!heap.empty()) {
    const auto rank = static_cast<uint32_t>(heap.front() >> 32);
    const auto left = static_cast<uint32_t>(heap.front());
    std::pop_heap(heap.begin(), heap.end(), std::greater<>());
    heap.pop_back();
    Scratch::Symbol& symbol = symbols[left];
    if (symbol.rank != rank) continue;  // the pair is gone: one of the two was merged meanwhile
    Scratch::Symbol& eaten = symbols[symbol.next];
    symbol.id = merged_[rank];
    symbol.next = eaten.next;
    eaten.rank = IdMap::kNone;
    if (symbol.next != kEnd) symbols[symbol.next].previous = left;
    push_pair(left);
    if (symbol.previous != kEnd) push_pair(symbol.previous);
  }
}

}  // namespace idefics
