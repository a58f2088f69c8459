// What is known of the pictures that were asked about lately.
#pragma once

#include <list>
#include <mutex>
#include <optional>
#include <vector>

#include "processor/parts.h"
#include "scheduling/key.h"

namespace idefics {

// The grid of a picture and the keys of its tiles by the bytes of its file: with a second question about a picture it
// need not be decoded. If the features of its tiles are gone meanwhile, it is decoded when they are wanted.
// Threads: any.
class KnownPictures {
 public:
  struct Picture {
    PromptImage image;  // without pixels
    std::vector<TileKey> keys;
  };
  // The salt of the tiles' keys is a part of the name.
  static Key name(std::string_view salt, const PictureFile& file);

  std::optional<Picture> find(const Key& name);
  void add(const Key& name, Picture picture);

 private:
  static constexpr size_t kMost = 256;  // of some hundred bytes
  std::mutex mutex_;
  std::list<std::pair<Key, Picture>> recent_;  // last used first
};

}  // namespace idefics
