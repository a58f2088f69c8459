#include "checkpoint/json_fields.h"

#include <fmt/format.h>

#include <limits>

namespace idefics {

namespace {

constexpr int64_t kMaxId = std::numeric_limits<int32_t>::max();
constexpr size_t kMaxIds = 1024;

}  // namespace

std::optional<int> find_token_id(const JsonObject& object, std::string_view key) {
  const std::optional<int64_t> id = object.find_int(key, -1, kMaxId);
  if (!id || *id < 0) return std::nullopt;
  return static_cast<int>(*id);
}

std::vector<int32_t> find_token_ids(const JsonObject& object, std::string_view key) {
  const json::value* value = object.find(key);
  if (value == nullptr) return {};
  if (!value->is_array()) {
    const std::optional<int> id = find_token_id(object, key);
    return id ? std::vector<int32_t>{*id} : std::vector<int32_t>{};
  }
  const json::array& list = value->get_array();
  if (list.size() > kMaxIds) object.fail(key, fmt::format("has {} ids, wanted at most {}", list.size(), kMaxIds));
  std::vector<int32_t> ids;
  ids.reserve(list.size());
  for (const json::value& item : list) {
    const int64_t* id = item.if_int64();
    if (id == nullptr || *id < 0 || *id > kMaxId) {
      object.fail(key, fmt::format("holds {}, wanted whole numbers from 0 to {}", describe(item), kMaxId));
    }
    ids.push_back(static_cast<int32_t>(*id));
  }
  return ids;
}

int get_int(const JsonObject& object, std::string_view key, int fallback, int min, int max) {
  const json::value* value = object.raw().if_contains(key);
  if (value == nullptr) return fallback;
  if (value->is_null()) object.fail(key, fmt::format("is null, wanted a whole number from {} to {}", min, max));
  return static_cast<int>(*object.find_int(key, min, max));
}

}  // namespace idefics
