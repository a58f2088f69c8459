#include "server/openai/requests.h"

#include <fmt/format.h>

#include "server/openai/api_error.h"
#include "server/openai/fields.h"
#include "server/openai/sampling_fields.h"

namespace idefics::openai {

namespace {

constexpr size_t kMaxMessages = 4096, kMaxParts = 1024, kMaxPictures = 16, kMaxTextBytes = size_t{32} << 20;
constexpr size_t kMaxIds = 1 << 20;
constexpr int kMaxTopLogprobs = 20, kDefaultCompletionTokens = 16;

// The messages of a chat, with what is known of their pictures.
struct Chat {
  std::vector<Message> messages;
  std::vector<std::string> picture_params;
  std::vector<PictureToFetch> to_fetch;
  bool detail_counts = true;  // nothing else says whether pictures are split
};

void read_picture(const Fields& part, const ParseContext& context, Message& message, Chat& chat) {
  const std::string param = part.path("image_url");
  const json::value* value = part.find("image_url");
  if (value == nullptr) throw invalid_value(param, fmt::format("{} is missing, wanted {{\"url\": ...}}", param));
  std::string_view url;
  std::string detail = "auto";
  if (value->is_string()) {
    url = value->get_string();
  } else {
    const Fields image = Fields::of(*value, param);
    const json::value* text = image.find("url");
    if (text == nullptr || !text->is_string())
      throw invalid_value(param + ".url", param + ".url is no string, wanted a URL");
    url = text->get_string();
    detail = image.find_string("detail", 16).value_or("auto");
  }
  if (detail != "auto" && detail != "low" && detail != "high")
    throw invalid_value(param + ".detail",
                        fmt::format("{}.detail is unknown, wanted \"auto\", \"low\" or \"high\"", param));
  if (chat.picture_params.size() == kMaxPictures)
    throw bad_request("too_many_images", param, fmt::format("{}: more than {} pictures", param, kMaxPictures));
  // Little detail is one tile; more is what the model's files say.
  ImageOptions options;
  if (detail == "low" && chat.detail_counts) options.split = false;
  if (std::optional<fetch::Url> remote = find_fetch_url(url, param, context.media)) {
    chat.to_fetch.push_back({chat.messages.size(), message.content.size(), param, *std::move(remote)});
    message.content.push_back(ContentPart::of_image("", options));
  } else {
    message.content.push_back(ContentPart::of_image(read_picture_url(url, param, context.media), options));
  }
  chat.picture_params.push_back(param);
}

void read_part(const Fields& part, const ParseContext& context, Message& message, Chat& chat) {
  const std::string type = part.find_string("type", 64).value_or("");
  if (type == "text") {
    const std::optional<std::string> text = part.find_string("text", kMaxTextBytes);
    if (!text) throw invalid_value(part.path("text"), part.path("text") + " is missing, wanted a string");
    message.content.push_back(ContentPart::of_text(*text));
  } else if (type == "image_url") {
    read_picture(part, context, message, chat);
  } else if (type == "input_audio" || type == "video_url" || type == "file") {
    throw unsupported(part.path("type"), fmt::format("{}: the model reads texts and pictures", part.path("type")));
  } else {
    throw invalid_value(part.path("type"), part.path("type") + " is unknown, wanted \"text\" or \"image_url\"");
  }
}

std::string read_role(const Fields& fields) {
  const std::string role = fields.find_string("role", 64).value_or("");
  if (role == "developer") return "system";
  if (role == "tool" || role == "function")
    throw unsupported(fields.path("role"), fmt::format("{}: the model calls no tools", fields.path("role")));
  if (role != "system" && role != "user" && role != "assistant")
    throw invalid_value(fields.path("role"),
                        fields.path("role") + " is unknown, wanted \"system\", \"user\" or \"assistant\"");
  return role;
}

Chat read_messages(const Fields& body, const ParseContext& context) {
  Chat chat;
  const std::optional<Fields> wishes = body.find_object("mm_processor_kwargs");
  chat.detail_counts = !wishes || !wishes->find_bool("do_image_splitting");
  const json::array* list = body.find_array("messages", kMaxMessages);
  if (list == nullptr) throw invalid_value("messages", "messages is missing, wanted an array of messages");
  if (list->empty()) throw bad_request("prompt_empty", "messages", "messages is empty, wanted at least one message");
  for (size_t m = 0; m < list->size(); ++m) {
    const Fields fields = Fields::of((*list)[m], fmt::format("messages[{}]", m));
    Message message{read_role(fields), {}};
    const json::value* content = fields.find("content");
    const std::string param = fields.path("content");
    if (content == nullptr) throw invalid_value(param, param + " is missing, wanted a string or an array of parts");
    if (content->is_string()) {
      message.content.push_back(ContentPart::of_text(std::string(content->get_string())));
    } else {
      const json::array* parts = content->is_array() ? fields.find_array("content", kMaxParts) : nullptr;
      if (parts == nullptr) refuse_value(param, *content, "a string or an array of parts");
      for (size_t p = 0; p < parts->size(); ++p)
        read_part(Fields::of((*parts)[p], fmt::format("{}[{}]", param, p)), context, message, chat);
      if (parts->empty()) throw bad_request("prompt_empty", param, param + " is empty, wanted at least one part");
    }
    chat.messages.push_back(std::move(message));
  }
  return chat;
}

// How all pictures of a request are cut.
ImageOptions read_image_options(const Fields& body) {
  ImageOptions options;
  const std::optional<Fields> wishes = body.find_object("mm_processor_kwargs");
  if (!wishes) return options;
  for (const auto& member : wishes->raw()) {
    const std::string_view key(member.key().data(), member.key().size());
    if (key != "do_image_splitting" && key != "size" && key != "max_tiles")
      // The log has the field of an error, so it is one that is known here.
      throw unsupported("mm_processor_kwargs",
                        fmt::format("mm_processor_kwargs has \"{}\", wanted do_image_splitting, size.longest_edge "
                                    "and max_tiles, and nothing else",
                                    key.substr(0, 60)));
  }
  if (const auto split = wishes->find_bool("do_image_splitting")) options.split = *split;
  if (const auto tiles = wishes->find_int("max_tiles", 1, 10000)) options.max_tiles = static_cast<int>(*tiles);
  if (const auto size = wishes->find_object("size")) {
    if (const auto edge = size->find_int("longest_edge", 1, 4096)) options.longest_edge = static_cast<int>(*edge);
  }
  return options;
}

PromptOptions read_prompt_options(const Fields& body, const Chat& chat) {
  PromptOptions options;
  options.images = read_image_options(body);
  options.continue_final_message = body.find_bool("continue_final_message").value_or(false);
  const std::optional<bool> add = body.find_bool("add_generation_prompt");
  if (options.continue_final_message && add == true)
    throw invalid_value("continue_final_message",
                        "continue_final_message and add_generation_prompt contradict each other");
  if (options.continue_final_message && chat.messages.back().role != "assistant")
    throw invalid_value("continue_final_message",
                        "continue_final_message wants the last message to be the assistant's");
  options.add_generation_prompt = add.value_or(!options.continue_final_message);
  return options;
}

void read_chat_logprobs(const Fields& body, GenerationRequest& request) {
  const bool wanted = body.find_bool("logprobs").value_or(false);
  const std::optional<int64_t> top = body.find_int("top_logprobs", 0, kMaxTopLogprobs);
  if (top && *top > 0 && !wanted) throw invalid_value("top_logprobs", "top_logprobs is only for \"logprobs\": true");
  if (wanted) request.engine.logprobs = static_cast<int>(top.value_or(0));
}

// "prompt" of a completion: a text, ids, or a list of one of these.
void read_prompt(const Fields& body, const ParseContext& context, idefics::Request& engine) {
  const json::value* prompt = body.find("prompt");
  if (prompt == nullptr) throw invalid_value("prompt", "prompt is missing, wanted a string or an array of token ids");
  std::string path = "prompt";
  if (prompt->is_array() && !prompt->get_array().empty() && !prompt->get_array().front().is_number()) {
    if (prompt->get_array().size() > 1) throw unsupported("prompt", "prompt: one at a time; send several requests");
    prompt = &prompt->get_array().front();
    path = "prompt[0]";
  }
  if (prompt->is_string()) {
    if (prompt->get_string().empty()) throw bad_request("prompt_empty", path, path + " is empty, wanted a text");
    engine.text = std::string(prompt->get_string());
    return;
  }
  if (!prompt->is_array()) refuse_value(path, *prompt, "a string or an array of token ids");
  const json::object holder = {{path, *prompt}};
  engine.token_ids = Fields(holder, "").find_ids(path, kMaxIds, context.vocab_size - 1);
  if (engine.token_ids->empty()) throw bad_request("prompt_empty", path, path + " is empty, wanted token ids");
}

}  // namespace

GenerationRequest parse_chat_request(const json::value& value, const ParseContext& context) {
  const Fields body = Fields::of(value, "");
  GenerationRequest request;
  read_common_fields(body, context, request);
  read_chat_logprobs(body, request);
  Chat chat = read_messages(body, context);
  request.engine.prompt = read_prompt_options(body, chat);
  request.engine.messages = std::move(chat.messages);
  request.picture_params = std::move(chat.picture_params);
  request.to_fetch = std::move(chat.to_fetch);
  return request;
}

GenerationRequest parse_completion_request(const json::value& value, const ParseContext& context) {
  const Fields body = Fields::of(value, "");
  GenerationRequest request;
  request.chat = false;
  read_common_fields(body, context, request);
  if (body.find("max_tokens") == nullptr && body.find("max_completion_tokens") == nullptr)
    request.engine.sampling.max_tokens = std::max(kDefaultCompletionTokens, request.engine.sampling.min_tokens);
  if (const auto top = body.find_int("logprobs", 0, kMaxTopLogprobs)) request.engine.logprobs = static_cast<int>(*top);
  read_prompt(body, context, request.engine);
  return request;
}

TokenizeRequest parse_tokenize_request(const json::value& value, const ParseContext& context) {
  const Fields body = Fields::of(value, "");
  read_model(body, context);
  TokenizeRequest request;
  request.token_strings = body.find_bool("return_token_strs").value_or(false);
  if (body.find("messages") == nullptr) {
    request.add_special_tokens = body.find_bool("add_special_tokens").value_or(true);
    request.text = body.find_string("prompt", kMaxTextBytes);
    if (!request.text) throw invalid_value("prompt", "prompt is missing, wanted a string (or messages)");
    return request;
  }
  Chat chat = read_messages(body, context);
  request.prompt = read_prompt_options(body, chat);
  request.messages = std::move(chat.messages);
  request.picture_params = std::move(chat.picture_params);
  request.to_fetch = std::move(chat.to_fetch);
  return request;
}

std::vector<int32_t> parse_detokenize_request(const json::value& value, const ParseContext& context) {
  const Fields body = Fields::of(value, "");
  read_model(body, context);
  std::optional<std::vector<int32_t>> ids = body.find_ids("tokens", kMaxIds, context.vocab_size - 1);
  if (!ids) throw invalid_value("tokens", "tokens is missing, wanted an array of token ids");
  return *std::move(ids);
}

}  // namespace idefics::openai
