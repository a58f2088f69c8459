// What goes over a connection: a request, a response, and what a connection itself can find wrong.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace idefics::http {

struct Limits {
  size_t request_line_bytes = size_t{8} << 10;
  size_t head_bytes = size_t{32} << 10;  // request line and headers
  int headers = 100;
  size_t body_bytes = size_t{32} << 20;
  // Of all bodies together that are being received, without the first 64 KiB of each.
  size_t all_bodies_bytes = size_t{256} << 20;
  size_t unsent_bytes = size_t{1} << 20;  // of a stream, waiting for a slow reader
  int connections = 1024;                 // more are told that the server is overloaded
  int head_timeout_ms = 10'000;        // from the first byte of a request (or from connecting) to the end of its head
  int body_timeout_ms = 30'000;        // without a byte of the body
  int send_timeout_ms = 30'000;        // without a byte taken by the reader
  int keep_alive_timeout_ms = 60'000;  // between two requests
};

using Headers = std::vector<std::pair<std::string, std::string>>;

struct Request {
  std::string method;
  std::string path;   // of the target, as it was sent: not decoded
  std::string query;  // behind "?"
  int version = 11;   // 10 or 11
  Headers headers;    // names in lower case
  std::string body;
  bool keep_alive = true;
  std::string peer;  // address of the client; "unix" for a unix socket
  std::string id;  // names the request in headers and logs: the client's x-request-id if it is a plain word, else ours
  // By those who answer it:
  Headers notes;          // for the log
  Headers reply_headers;  // added to the response

  // The value of a header by its lower-case name, "" when it is absent; of several, the first.
  std::string_view header(std::string_view name) const;
  int count(std::string_view name) const;
};

struct Response {
  int status = 200;
  Headers headers = {};
  std::string body = {};
  bool close = false;  // close the connection behind it
};

// What makes a request unreadable. The connection is closed after the response.
enum class Fault {
  kMalformed,           // 400
  kTimeout,             // 408: the head or the body came too slowly
  kBodyTooLarge,        // 413
  kHeadersTooLarge,     // 431
  kTooManyConnections,  // 503
  kTooManyBodies        // 503: they need too much memory together
};

std::string_view reason_phrase(int status);
// The bytes of a response's head; `framing` is its last header ("content-length: 5", "transfer-encoding: chunked").
std::string head_bytes(const Response& response, std::string_view framing, bool close);
// Whether two header values are equal but for the case of ASCII letters.
bool same_word(std::string_view a, std::string_view b);
std::string lower(std::string_view text);
std::string_view trimmed(std::string_view text);

}  // namespace idefics::http
