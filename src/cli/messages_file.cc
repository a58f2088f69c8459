#include "cli/messages_file.h"

#include <fmt/format.h>

#include "base/files.h"
#include "base/json.h"
#include "cli/pictures.h"

namespace idefics::cli {

namespace {

constexpr uint64_t kMaxMessagesBytes = uint64_t{1} << 26;

std::string required(const JsonObject& object, std::string_view key) {
  std::optional<std::string> value = object.find_string(key);
  if (!value) object.fail(key, "is missing, wanted a string");
  return *value;
}

void read_part(const JsonObject& part, const std::filesystem::path& folder, Message& message,
               Conversation& conversation) {
  const std::string type = required(part, "type");
  if (type == "text") {
    message.content.push_back(ContentPart::of_text(required(part, "text")));
  } else if (type == "image") {
    const std::string path = (folder / required(part, "path")).string();
    message.content.push_back(ContentPart::of_image(read_picture(path)));
    conversation.pictures.push_back(path);
  } else {
    part.fail("type", fmt::format("is {}, wanted \"text\" or \"image\"", describe(json::string(type))));
  }
}

Message read_message(const JsonObject& object, const std::filesystem::path& folder, Conversation& conversation) {
  Message message{required(object, "role"), {}};
  const json::value* content = object.find("content");
  if (content != nullptr && content->is_string()) {
    message.content.push_back(ContentPart::of_text(std::string(content->as_string())));
    return message;
  }
  if (content == nullptr || !content->is_array()) object.fail("content", "is missing, wanted a string or an array");
  size_t number = 0;
  for (const json::value& part : content->as_array()) {
    const std::string name = fmt::format("{}: part {}", object.name(), ++number);
    read_part(JsonObject::of(part, name, ErrorCode::kInvalidValue), folder, message, conversation);
  }
  return message;
}

}  // namespace

Conversation parse_messages(std::string_view text, const std::string& where, const std::filesystem::path& folder) {
  const json::value value = parse_json(text, where, ErrorCode::kInvalidValue);
  if (!value.is_array()) {
    throw Error(
        ErrorCode::kInvalidValue,
        fmt::format("{}: is {}, wanted an array of messages like [{{\"role\": \"user\", \"content\": \"Hello\"}}]",
                    where, describe(value)));
  }
  Conversation conversation;
  for (const json::value& message : value.as_array()) {
    const std::string name = fmt::format("{}: message {}", where, conversation.messages.size() + 1);
    conversation.messages.push_back(
        read_message(JsonObject::of(message, name, ErrorCode::kInvalidValue), folder, conversation));
  }
  return conversation;
}

Conversation read_messages_file(const std::filesystem::path& path) {
  return parse_messages(read_file(path, kMaxMessagesBytes), path.string(), path.parent_path());
}

std::string format_messages(const Conversation& conversation) {
  json::array out;
  size_t picture = 0;
  for (const Message& message : conversation.messages) {
    json::array content;
    for (const ContentPart& part : message.content) {
      if (part.type == ContentPart::Type::kText) {
        content.emplace_back(json::object{{"type", "text"}, {"text", part.text}});
      } else {
        const std::string path = std::filesystem::absolute(conversation.pictures.at(picture++)).string();
        content.emplace_back(json::object{{"type", "image"}, {"path", path}});
      }
    }
    out.emplace_back(json::object{{"role", message.role}, {"content", std::move(content)}});
  }
  return json::serialize(out) + "\n";
}

}  // namespace idefics::cli
