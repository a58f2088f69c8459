// Errors as clients see them: {"error": {"message", "type", "param", "code"}}.
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "server/http/message.h"

namespace idefics::openai {

// Thrown by everything that reads a request; caught where the request is answered.
struct ApiError : std::runtime_error {
  ApiError(int http_status, std::string_view error_type, std::string_view error_code, std::string_view field,
           const std::string& message)
      : std::runtime_error(message), status(http_status), type(error_type), code(error_code), param(field) {}
  int status;
  std::string type, code;
  std::string param;  // the field that is wrong, "messages[1].content[0].image_url"; empty: none
};

// 400. A request that is wrong stays wrong: it must never have a status that clients retry.
ApiError bad_request(std::string_view code, std::string_view param, const std::string& message);
inline ApiError invalid_value(std::string_view param, const std::string& message) {
  return bad_request("invalid_value", param, message);
}
inline ApiError unsupported(std::string_view param, const std::string& message) {
  return bad_request("unsupported_parameter", param, message);
}
// 503 with Retry-After.
ApiError unavailable(std::string_view code, const std::string& message);

// What the engine says, for clients. Messages about the request are passed on; those about our files and our faults are
// not, since they name paths.
ApiError from_engine(const Error& error);
// An error about one of the request's pictures names its field, of `picture_params`, which are in order.
ApiError from_engine(const Error& error, const std::vector<std::string>& picture_params);

// The object, at most 4 KiB of it, whatever the message holds.
json::object to_json(const ApiError& error);
http::Response to_response(const ApiError& error);
http::Response json_response(int status, const json::value& value);

}  // namespace idefics::openai
