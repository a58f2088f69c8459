#include "cli/pictures.h"

#include <fmt/format.h>

#include <filesystem>

#include "base/files.h"
#include "image/codec.h"

namespace idefics::cli {

namespace {

std::string display_name(const std::string& path) { return path == "-" ? "standard input" : path; }

std::string read_bytes(const std::string& path) {
  const uint64_t most = ImageLimits{}.max_bytes;
  if (path == "-") return read_stdin(most);
  std::error_code error;
  const uint64_t size = std::filesystem::is_regular_file(path, error) ? std::filesystem::file_size(path, error) : 0;
  if (!error && size > most) {
    throw Error(ErrorCode::kImageTooLarge,
                fmt::format("{}: has {} bytes, wanted a picture of at most {}; save it smaller", path, size, most));
  }
  return read_file(path, most);
}

}  // namespace

std::string read_picture(const std::string& path) {
  std::string bytes = read_bytes(path);
  try {
    probe_image(std::as_bytes(std::span(bytes)));
  } catch (const Error& e) {
    throw e.with_context(display_name(path));
  }
  return bytes;
}

void blame_picture(const Error& error, const Conversation& conversation) {
  if (error.code() != ErrorCode::kImageInvalid && error.code() != ErrorCode::kImageTooLarge) throw error;
  size_t picture = 0;
  for (const Message& message : conversation.messages) {
    for (const ContentPart& part : message.content) {
      if (part.type != ContentPart::Type::kImage) continue;
      const std::string& path = conversation.pictures.at(picture++);
      try {
        decode_image(std::as_bytes(std::span(part.image)));
      } catch (const Error& e) {
        throw e.with_context(display_name(path));
      }
    }
  }
  throw error;
}

}  // namespace idefics::cli
