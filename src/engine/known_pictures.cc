#include "engine/known_pictures.h"

#include <algorithm>

#include "base/sha256.h"

namespace idefics {

Key KnownPictures::name(std::string_view salt, const PictureFile& file) {
  const ImageOptions& options = file.options;
  // -1: not said.
  const int wishes[] = {options.split ? int{*options.split} : -1, options.longest_edge.value_or(-1),
                        options.max_tiles.value_or(-1)};
  return Sha256()
      .add_value(salt.size())
      .add(std::as_bytes(std::span(salt)))
      .add_value(wishes)
      .add(std::as_bytes(std::span(file.bytes)))
      .digest();
}

std::optional<KnownPictures::Picture> KnownPictures::find(const Key& name) {
  const std::lock_guard lock(mutex_);
  const auto known = std::ranges::find(recent_, name, [](const auto& entry) { return entry.first; });
  if (known == recent_.end()) return std::nullopt;
  recent_.splice(recent_.begin(), recent_, known);
  return recent_.front().second;
}

void KnownPictures::add(const Key& name, Picture picture) {
  const std::lock_guard lock(mutex_);
  recent_.emplace_front(name, std::move(picture));
  if (recent_.size() > kMost) recent_.pop_back();
}

}  // namespace idefics
