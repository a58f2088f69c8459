#include "server/openai/api_error.h"

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
