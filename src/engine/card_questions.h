// Questions to the small model that comes with the project, for tests.
#pragma once

#include "base/files.h"
#include "idefics/engine.h"

namespace idefics {

inline const std::filesystem::path kModel = std::filesystem::path(IDEFICS_SOURCE_DIR) / "models/tiny-cards";

// About a picture of models/tiny-cards/samples; without one when `image` is empty.
inline Request ask(const std::string& image, const std::string& question) {
  Request request;
  Message message{"user", {}};
  if (!image.empty()) message.content.push_back(ContentPart::of_image(read_file(kModel / "samples" / image, 1 << 24)));
  message.content.push_back(ContentPart::of_text(question));
  request.messages.push_back(std::move(message));
  return request;
}

}  // namespace idefics
