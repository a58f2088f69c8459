// Conversations as files: a JSON array of {"role", "content"}, where content is a string or an array of parts
// {"type": "text", "text"} and {"type": "image", "path"}. Paths are relative to the folder of the file.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "idefics/processor.h"

namespace idefics::cli {

struct Conversation {
  std::vector<Message> messages;
  std::vector<std::string> pictures;  // the file of each image part, in their order
};

// Reads a file and the pictures it names. Errors: kIo for a file that is missing; kInvalidValue naming the message and
// the key.
Conversation read_messages_file(const std::filesystem::path& path);
// The same from text; `folder` is where relative paths begin.
Conversation parse_messages(std::string_view text, const std::string& where, const std::filesystem::path& folder);

// The JSON text of a conversation; the pictures' paths made absolute, so that the file may lie anywhere.
std::string format_messages(const Conversation& conversation);

}  // namespace idefics::cli
