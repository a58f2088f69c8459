#include "text/vocabulary.h"

#include <fmt/format.h>

#include <bit>
#include <cstring>

#include "text/byte_level.h"

namespace idefics {

namespace {

// Eight bytes a step: most pieces of text are shorter than that.
uint64_t hash_of(std::string_view bytes) {
  constexpr uint64_t kFactor = 0x9e3779b97f4a7c15u;
  uint64_t hash = bytes.size() * kFactor;
  const auto mix = [&hash](uint64_t chunk) {
    hash = (hash ^ chunk) * kFactor;
    hash ^= hash >> 32;
  };
  size_t i = 0;
  for (; i + 8 <= bytes.size(); i += 8) {
    uint64_t chunk = 0;
    std::memcpy(&chunk, bytes.data() + i, 8);
    mix(chunk);
  }
  uint64_t tail = 0;
  for (; i < bytes.size(); ++i) tail = tail << 8 | static_cast<uint8_t>(bytes[i]);
  mix(tail);
  return hash;
}

int32_t parse_id(const json::value& value, std::string_view token, const std::string& name) {
  const int64_t* id = value.if_int64();
  if (id == nullptr || *id < 0 || *id > Vocabulary::kMaxId) {
    throw Error(ErrorCode::kBadModel, fmt::format("{}: the id of {} is {}, wanted a whole number from 0 to {}", name,
                                                  describe(json::value(token)), describe(value), Vocabulary::kMaxId));
  }
  return static_cast<int32_t>(*id);
}

}  // namespace

Vocabulary Vocabulary::parse(const json::object& object, const std::string& name) {
  if (object.size() > static_cast<size_t>(kMaxId) + 1) {
    throw Error(ErrorCode::kBadModel,
                fmt::format("{}: has {} tokens, at most {} are supported", name, object.size(), kMaxId + 1));
  }
  Vocabulary v;
  v.slots_.resize(std::bit_ceil(2 * object.size() + 2));
  for (const auto& [key, value] : object) {
    const std::string_view spelled(key.data(), key.size());
    const int32_t id = parse_id(value, spelled, name);
    if (id >= v.size()) v.entries_.resize(static_cast<size_t>(id) + 1);
    Entry& entry = v.entries_[static_cast<size_t>(id)];
    if (entry.used) {
      throw Error(ErrorCode::kBadModel, fmt::format("{}: two tokens have the id {}, one of them is {}", name, id,
                                                    describe(json::value(spelled))));
    }
    entry.used = true;
    entry.begin = static_cast<uint32_t>(v.arena_.size());
    const bool in_alphabet = append_spelled_bytes(v.arena_, spelled);
    if (!in_alphabet) v.arena_.append(spelled);
    entry.length = static_cast<uint32_t>(v.arena_.size()) - entry.begin;
    if (in_alphabet) {
      v.insert(id);
    } else {
      v.unspelled_.emplace(spelled, id);
    }
  }
  return v;
}

void Vocabulary::insert(int32_t id) {
  const uint64_t hash = hash_of(bytes(id));
  const size_t mask = slots_.size() - 1;
  size_t i = static_cast<size_t>(hash) & mask;
  while (slots_[i].id >= 0) i = (i + 1) & mask;
  slots_[i] = {static_cast<uint32_t>(hash >> 32), id};
}

std::optional<int32_t> Vocabulary::find_bytes(std::string_view wanted) const {
  if (slots_.empty()) return std::nullopt;
  const uint64_t hash = hash_of(wanted);
  const auto tag = static_cast<uint32_t>(hash >> 32);
  const size_t mask = slots_.size() - 1;
  for (size_t i = static_cast<size_t>(hash) & mask; slots_[i].id >= 0; i = (i + 1) & mask) {
    if (slots_[i].tag == tag && bytes(slots_[i].id) == wanted) return slots_[i].id;
  }
  return std::nullopt;
}

std::optional<int32_t> Vocabulary::find_spelled(std::string_view spelled) const {
  std::string bytes;
  if (append_spelled_bytes(bytes, spelled)) return find_bytes(bytes);
  const auto found = unspelled_.find(std::string(spelled));
  return found == unspelled_.end() ? std::nullopt : std::optional(found->second);
}

}  // namespace idefics
