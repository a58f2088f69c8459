// What the HTTP server and those who answer requests know of each other.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "server/http/message.h"

namespace idefics::http {

// One request and the way to answer it: respond() once, or begin_stream(), send()... and end_stream().
// Threads: everything but post() and request() happens on the thread of the connection, where Handler::handle is
// called.
class Exchange {
 public:
  virtual ~Exchange() = default;

  virtual Request& request() = 0;

  // The whole answer. Nothing happens when the client is gone.
  virtual void respond(Response response) = 0;

  // The head of an answer whose body comes in pieces. While nothing is sent for `heartbeat_ms`, `heartbeat` is.
  virtual void begin_stream(Response head, std::string heartbeat, int heartbeat_ms) = 0;
  // False when the client is gone, or reads so slowly that Limits::unsent_bytes wait for it: then it is cut off.
  virtual bool send(std::string_view bytes) = 0;
  // `close`: the connection is not used again.
  virtual void end_stream(bool close) = 0;

  // Called once when neither respond() nor begin_stream() came within `ms` of this call.
  virtual void on_silence(int ms, std::function<void()> action) = 0;
  // Called once when the client goes away (or is cut off) before the answer is complete; at once if it is gone already.
  virtual void on_gone(std::function<void()> action) = 0;
  // Runs `action` on the connection's thread, in the order of the calls. Any thread.
  virtual void post(std::function<void()> action) = 0;
};

// Answers requests. Called from several threads, one for each connection; must be quick and must not throw.
class Handler {
 public:
  virtual ~Handler() = default;
  // Looks at a request whose body has not been read: nothing, or what it is refused with.
  virtual std::optional<Response> admit(Request& head) = 0;
  // The request's body is gone when it returns.
  virtual void handle(std::shared_ptr<Exchange> exchange) = 0;
  // The answer to what is not a request.
  virtual Response refuse(Fault fault) = 0;
  // A request was answered (status 0: the client went away before), `ms` after its head. `request` has what could be
  // read of it.
  virtual void answered(const Request& request, int status, double ms) = 0;
};

}  // namespace idefics::http
