#include "text/added_tokens.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/utf8.h"
#include "text/byte_level.h"

namespace idefics {

namespace {

// A search costs at most this much a byte of text. The longest ones of known models have some 40 bytes.
constexpr size_t kMaxContent = 1024;

// White_Space of Unicode.
bool is_space(char32_t c) {
  return (c >= 9 && c <= 13) || c == 32 || c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) ||
         c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

// The start of the character that ends at `end`.
size_t previous_character(std::string_view text, size_t end) {
  do --end;
  while (end > 0 && (static_cast<uint8_t>(text[end]) & 0xc0) == 0x80);
  return end;
}

// The start of the white space that ends at `end`, not before `limit`.
size_t skip_space_left(std::string_view text, size_t end, size_t limit) {
  while (end > limit) {
    const size_t begin = previous_character(text, end);
    if (!is_space(decode_utf8(text, begin).value)) break;
    end = begin;
  }
  return end;
}

size_t skip_space_right(std::string_view text, size_t begin) {
  while (begin < text.size()) {
    const CodePoint c = decode_utf8(text, begin);
    if (!is_space(c.value)) break;
    begin += static_cast<size_t>(c.length);
  }
  return begin;
}

// Whether [begin, end) is covered. Ranges that touch cover what lies across them: a user who cuts a control token in
// two parts must not get it.
bool covers(std::span<const TextRange> ranges, size_t begin, size_t end) {
  auto range =
      std::upper_bound(ranges.begin(), ranges.end(), begin, [](size_t at, const TextRange& r) { return at < r.end; });
  for (; range != ranges.end() && range->begin <= begin; ++range) {
    if (range->end >= end) return true;
    begin = range->end;
  }
  return false;
}

AddedToken parse_token(const JsonObject& object) {
  AddedToken token;
  const auto content = object.find_string("content");
  if (!content) object.fail("content", "is missing");
  if (content->size() > kMaxContent) {
    object.fail("content", fmt::format("has {} bytes, at most {} are supported", content->size(), kMaxContent));
  }
  const auto id = object.find_int("id", 0, Vocabulary::kMaxId);
  if (!id) object.fail("id", "is missing");
  token.content = *content;
  token.id = static_cast<int32_t>(*id);
  token.single_word = object.find_bool("single_word").value_or(false);
  token.lstrip = object.find_bool("lstrip").value_or(false);
  token.rstrip = object.find_bool("rstrip").value_or(false);
  token.special = object.find_bool("special").value_or(false);
  token.normalized = object.find_bool("normalized").value_or(!token.special);
  return token;
}

}  // namespace

AddedTokens AddedTokens::parse(const json::array& array, const std::string& name, const Vocabulary& vocabulary) {
  std::vector<AddedToken> tokens;
  size_t bytes[2] = {0, 0};
  for (const json::value& value : array) {
    tokens.push_back(parse_token(JsonObject::of(value, fmt::format("{}[{}]", name, tokens.size()))));
    bytes[tokens.back().normalized] += tokens.back().content.size();
  }
  AddedTokens result(bytes[0], bytes[1]);
  result.tokens_.reserve(tokens.size());
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (!tokens[i].content.empty()) result.add(std::move(tokens[i]), fmt::format("{}[{}]", name, i), vocabulary);
  }
  return result;
}

void AddedTokens::add(AddedToken token, const std::string& name, const Vocabulary& vocabulary) {
  const auto fail = [&](std::string_view problem) {
    throw Error(ErrorCode::kBadModel, fmt::format("{}: the token {} with id {} {}", name,
                                                  describe(json::value(token.content)), token.id, problem));
  };
  if (!ids_.emplace(token.content, token.id).second) fail("stands there twice");
  if (!by_id_.emplace(token.id, tokens_.size()).second) fail("has the id of another added token");
  const auto in_model = vocabulary.find_spelled(token.content);
  if (in_model && *in_model != token.id) fail(fmt::format("has the id {} in the model's vocabulary", *in_model));
  if (!in_model && vocabulary.has(token.id)) fail("has the id of another token of the model's vocabulary");
  if (token.single_word && !word_) word_ = SplitRegex::word_character();
  (token.normalized ? normalized_ : raw_).add(token.content, static_cast<int32_t>(tokens_.size()));
  tokens_.push_back(std::move(token));
}

std::optional<int32_t> AddedTokens::find(std::string_view content) const {
  const auto found = ids_.find(std::string(content));
  return found == ids_.end() ? std::nullopt : std::optional(found->second);
}

std::vector<Segment> AddedTokens::split(std::string_view text, const Trust& trust) const {
  std::vector<Segment> first, all;
  search(raw_, text, {0, text.size(), nullptr}, trust, first);
  for (const Segment& segment : first) {
    if (segment.token != nullptr) {
      all.push_back(segment);
    } else {
      search(normalized_, text, segment, segment.untrusted ? Trust{Trust::Kind::kNone, {}} : trust, all);
    }
  }
  return all;
}

// Searches one part of the whole text as if there were nothing around it.
void AddedTokens::search(const Trie& trie, std::string_view whole, Segment part, const Trust& trust,
                         std::vector<Segment>& out) const {
  const std::string_view text = whole.substr(0, part.end);
  const RegexScratch scratch;
  size_t done = part.begin;      // segments cover the part up to here
  size_t stripped = part.begin;  // white space was skipped up to here, and need not be again
  const auto put_text = [&](size_t begin, size_t end, bool untrusted) {
    if (begin < end) out.push_back({begin, end, nullptr, untrusted});
    done = end;
  };
  for (size_t at = part.begin; at < text.size();) {
    const int32_t index = trie.longest(text, at);
    if (index < 0) {
      ++at;
      continue;
    }
    const AddedToken& token = tokens_[static_cast<size_t>(index)];
    size_t begin = at, end = at + token.content.size();
    at = end;  // also behind a match that does not count: it hides what it covers, as in the reference
    if (token.special && trust.kind == Trust::Kind::kNone) continue;
    if (token.single_word && !stands_alone(text, part.begin, begin, end, scratch)) continue;
    if (token.special && trust.kind == Trust::Kind::kExcept && covers(trust.untrusted, begin, end)) {
      if (done < begin) put_text(done, begin, false);
      put_text(begin, end, true);
      continue;
    }
    if (token.lstrip) begin = std::max(done, skip_space_left(text, begin, done));
    if (token.rstrip) end = stripped = skip_space_right(text, std::max(end, stripped));
    if (done < begin) put_text(done, begin, false);
    // A token of white space that the one before has swallowed is gone.
    if (begin < end) out.push_back({begin, end, &token});
    done = end;
  }
  put_text(done, text.size(), part.untrusted);
}

bool AddedTokens::stands_alone(std::string_view text, size_t first, size_t begin, size_t end,
                               const RegexScratch& scratch) const {
  const auto is_word = [&](size_t from, size_t to) {
    return word_->find(text.substr(from, to - from), 0, scratch).has_value();
  };
  if (begin > first && is_word(previous_character(text, begin), begin)) return false;
  return end >= text.size() || !is_word(end, end + static_cast<size_t>(decode_utf8(text, end).length));
}

void AddedTokens::Trie::add(std::string_view content, int32_t token) {
  starts_[static_cast<uint8_t>(content[0])] = true;
  uint32_t node = 0;
  for (const char c : content) {
    uint32_t next = next_.get(node, static_cast<uint8_t>(c));
    if (next == IdMap::kNone) {
      next = static_cast<uint32_t>(token_at_.size());
      next_.set(node, static_cast<uint8_t>(c), next);
      token_at_.push_back(-1);
    }
    node = next;
  }
  token_at_[node] = token;
}

int32_t AddedTokens::Trie::longest(std::string_view text, size_t at) const {
  if (!starts_[static_cast<uint8_t>(text[at])]) return -1;
  int32_t found = -1;
  uint32_t node = 0;
  for (size_t i = at; i < text.size(); ++i) {
    node = next_.get(node, static_cast<uint8_t>(text[i]));
    if (node == IdMap::kNone) break;
    if (token_at_[node] >= 0) found = token_at_[node];
  }
  return found;
}

}  // namespace idefics
