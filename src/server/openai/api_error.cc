#include "server/openai/api_error.h"

#include <charconv>
#include <optional>

#include "base/utf8.h"

namespace idefics::openai {

namespace {

// A control character takes six bytes of JSON: the worst message of this length still fits 4 KiB.
constexpr size_t kMaxMessageBytes = 500, kMaxParamBytes = 100;

std::string cut(std::string_view text, size_t most) {
  if (text.size() <= most) return repair_utf8(text);
  std::string_view kept = text.substr(0, most);
  kept.remove_suffix(incomplete_utf8_tail(kept));
  return repair_utf8(kept) + "...";
}

// The number of the picture in "image 2: ...", how the processor begins its errors about one.
std::optional<size_t> picture_of(std::string_view message) {
  constexpr std::string_view kStart = "image ";
  size_t number = 0;
  if (!message.starts_with(kStart)) return std::nullopt;
  message.remove_prefix(kStart.size());
  const auto [end, error] = std::from_chars(message.data(), message.data() + message.size(), number);
  if (error != std::errc() || end == message.data() + message.size() || *end != ':' || number == 0) return std::nullopt;
  return number - 1;
}

}  // namespace

ApiError bad_request(std::string_view code, std::string_view param, const std::string& message) {
  return ApiError(400, "invalid_request_error", code, param, message);
}

ApiError unavailable(std::string_view code, const std::string& message) {
  return ApiError(503, "server_error", code, "", message);
}

ApiError from_engine(const Error& error) {
  switch (error.code()) {
    case ErrorCode::kInvalidValue:
    case ErrorCode::kPromptEmpty:
    case ErrorCode::kContextLengthExceeded:
    case ErrorCode::kImageInvalid:
    case ErrorCode::kImageTooLarge:
    case ErrorCode::kTooManyImages:
    case ErrorCode::kTemplateError:
    case ErrorCode::kSchemaInvalid: return bad_request(code_name(error.code()), "", error.what());
    case ErrorCode::kOverloaded: return unavailable("overloaded", "too many requests wait already; try again later");
    case ErrorCode::kOutOfMemory: return unavailable("out_of_memory", "there is not enough memory for this request");
    case ErrorCode::kCancelled: return unavailable("shutting_down", "the server is being shut down");
    case ErrorCode::kNumeric:
      return ApiError(500, "server_error", "model_numeric_error", "", "the model's numbers are not finite");
    case ErrorCode::kInternal:
    case ErrorCode::kUsage:
    case ErrorCode::kBadModel:
    case ErrorCode::kIo: break;
  }
  return ApiError(500, "server_error", "internal", "", "the server failed; its log has more under this request's id");
}

ApiError from_engine(const Error& error, const std::vector<std::string>& picture_params) {
  ApiError out = from_engine(error);
  const std::optional<size_t> picture = out.status == 400 ? picture_of(error.what()) : std::nullopt;
  if (picture && *picture < picture_params.size()) out.param = picture_params[*picture];
  return out;
}

json::object to_json(const ApiError& error) {
  json::value param;
  if (!error.param.empty()) param = cut(error.param, kMaxParamBytes);
  return {{"error",
           {{"message", cut(error.what(), kMaxMessageBytes)},
            {"type", error.type},
            {"param", std::move(param)},
            {"code", error.code}}}};
}

http::Response json_response(int status, const json::value& value) {
  return {.status = status,
          .headers = {{"content-type", "application/json"}, {"cache-control", "no-store"}},
          .body = json::serialize(value)};
}

http::Response to_response(const ApiError& error) {
  http::Response response = json_response(error.status, to_json(error));
  if (error.status == 503 || error.status == 429) response.headers.emplace_back("retry-after", "1");
  if (error.status == 401) response.headers.emplace_back("www-authenticate", "Bearer");
  return response;
}

}  // namespace idefics::openai
