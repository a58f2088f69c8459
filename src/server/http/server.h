// An HTTP/1.1 server: TCP or a unix socket, with or without TLS, for many connections on a few threads.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "server/http/exchange.h"

namespace idefics::http {

struct ServerOptions {
  std::string host = "127.0.0.1";                    // an address or a name
  int port = 8000;                                   // 0: any free one
  std::filesystem::path unix_path;                   // listen here instead
  std::filesystem::path certificate_file, key_file;  // PEM; both or none
  int num_threads = 2;
  Limits limits;
};

// Whether a connection to `host` cannot come from another machine.
bool is_loopback(const std::string& host);

// Each connection belongs to one thread. A client that goes away is noticed while its answer is being made.
class Server {
 public:
  // Listens; connections wait until start(). Errors: kIo (the address is in use, a file cannot be read), kUsage.
  // `handler` must outlive this.
  Server(const ServerOptions& options, Handler& handler);
  ~Server();  // stop()

  void start();
  // From now on every answer is the last one of its connection, so that its client opens the next one elsewhere.
  void close_connections();
  // Waits until no request is being answered; false when `timeout_ms` passed first. New ones still come in.
  bool wait_idle(int timeout_ms);
  // Lets nobody in any more, and waits until every request of which something has come is answered, if only to this
  // machine's buffers; false when `timeout_ms` passed first. It may be called again.
  bool finish(int timeout_ms);
  // Ends the threads: nobody is answered any more. What is posted to an exchange from then on is dropped, but exchanges
  // must be let go before this object is.
  void stop();

  int port() const;  // 0 for a unix socket
  // "http://127.0.0.1:8000", "unix:/run/idefics.sock".
  std::string url() const;
  int num_connections() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace idefics::http
