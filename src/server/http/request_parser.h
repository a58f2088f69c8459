// The bytes of a connection to requests, without sockets: whatever pieces the bytes come in, the result is the same.
#pragma once

#include <memory>
#include <string_view>

#include "server/http/message.h"

namespace idefics::http {

// Reads one request.
//
//   size_t used = parser.push(bytes);   // what was not used is offered again, with more bytes behind it
//
// push() stops behind the head, so that the caller can look at it before it lets the body come.
// Refused as malformed, because proxies and servers disagree about them: a Content-Length beside a Transfer-Encoding,
// two Content-Lengths that differ, any Transfer-Encoding but one "chunked", a bare line feed, a folded header, a NUL,
// HTTP/1.1 without exactly one Host. A wish to upgrade the connection is ignored.
class RequestParser {
 public:
  enum class State { kHead, kBody, kDone, kFailed };

  explicit RequestParser(const Limits& limits);
  ~RequestParser();

  size_t push(std::string_view bytes);
  State state() const { return state_; }
  Fault fault() const { return fault_; }  // of kFailed
  // Complete but for the body once the state is kBody.
  const Request& request() const;
  Request take();

 private:
  class Reader;
  size_t read(std::string_view bytes);
  void check_head();

  const Limits limits_;
  std::unique_ptr<Reader> reader_;
  State state_ = State::kHead;
  Fault fault_ = Fault::kMalformed;
};

}  // namespace idefics::http
