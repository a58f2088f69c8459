// Fields of model files that more than one file has.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace idefics {

// Size limits of the small files of a model folder, bytes.
inline constexpr uint64_t kMaxConfigBytes = uint64_t{1} << 20;
inline constexpr uint64_t kMaxTokenizerConfigBytes = uint64_t{1} << 24;

// A token id; nothing when absent, null or -1 (which old Llama files write for "none").
std::optional<int> find_token_id(const JsonObject& object, std::string_view key);
// A token id or a list of them; empty when absent, null or -1.
std::vector<int32_t> find_token_ids(const JsonObject& object, std::string_view key);

// The value of `key`, or `fallback` when the key is absent. Null is refused: the reference has no such value here.
int get_int(const JsonObject& object, std::string_view key, int fallback, int min, int max);

}  // namespace idefics
