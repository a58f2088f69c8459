// The tokens of a byte-level BPE model: ids and the bytes they stand for.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/json.h"

namespace idefics {

// Ids need not be dense. Threads: reading is free for all once it is filled.
class Vocabulary {
 public:
  // No known vocabulary comes near this; it bounds what a damaged or hostile file can make us allocate.
  static constexpr int32_t kMaxId = (1 << 22) - 1;

  // From the object {"spelled token": id, ...}; `name` says where it stands. Errors: kBadModel for an id that is no
  // whole number from 0 to kMaxId, and for two tokens of one id.
  static Vocabulary parse(const json::object& object, const std::string& name);

  // The largest id + 1.
  int32_t size() const { return static_cast<int32_t>(entries_.size()); }
  bool has(int32_t id) const { return id >= 0 && id < size() && entry(id).used; }
  // What the token decodes to (byte_level.h); empty for unknown ids.
  std::string_view bytes(int32_t id) const {
    return has(id) ? std::string_view(arena_).substr(entry(id).begin, entry(id).length) : std::string_view();
  }
  // The token that stands for exactly these bytes. Tokens that are not spelled in the byte alphabet are never found.
  std::optional<int32_t> find_bytes(std::string_view bytes) const;
  // The token as tokenizer.json spells it.
  std::optional<int32_t> find_spelled(std::string_view spelled) const;

 private:
  struct Entry {
    uint32_t begin = 0, length = 0;  // in arena_
    bool used = false;
  };
  struct Slot {
    uint32_t tag = 0;  // the other half of the hash, compared before the bytes
    int32_t id = -1;   // -1: free
  };

  const Entry& entry(int32_t id) const { return entries_[static_cast<size_t>(id)]; }
  void insert(int32_t id);

  std::string arena_;
  std::vector<Entry> entries_;                          // by id
  std::vector<Slot> slots_;                             // open addressing by bytes, at most half full
  std::unordered_map<std::string, int32_t> unspelled_;  // tokens that hold a character outside of the alphabet
};

}  // namespace idefics
