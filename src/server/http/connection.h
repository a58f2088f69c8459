// One connection of a server; for the files of this folder.
#pragma once

#include <atomic>
#include <boost/asio/basic_stream_socket.hpp>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ssl/context.hpp>
#include <condition_variable>
#include <mutex>
#include <unordered_set>

#include "server/http/exchange.h"

namespace idefics::http {

namespace asio = boost::asio;
using Socket = asio::generic::stream_protocol::socket;

// What the connections of a server have in common.
struct Shared {
  Shared(Handler& whose, const Limits& which) : handler(whose), limits(which) {}

  Handler& handler;
  const Limits limits;
  std::atomic<int> num_connections = 0;
  std::atomic<bool> closing = false;   // every answer is the last of its connection
  std::atomic<size_t> body_bytes = 0;  // of all bodies that have come and were not looked at yet

  void enter();
  void leave();
  bool wait_idle(int timeout_ms);

 private:
  std::mutex mutex_;
  std::condition_variable idle_;
  int active_ = 0;
};

// What can be asked of a connection on its thread.
class Watched {
 public:
  virtual ~Watched() = default;
  // Whether something of a request has come, if only to this machine, and its response is not written yet.
  virtual bool owes() const = 0;
};

// Whatever belongs to a connection happens on the one thread of its loop, and needs no lock.
struct Loop {
  std::unordered_set<const Watched*> connections;  // of this thread alone; outlives those in `context`
  asio::io_context context{1};
};

// Serves the connection until it ends, on the thread of the socket's loop, from which it must be called.
void start_connection(Socket socket, asio::ssl::context* tls, Loop& loop, Shared& shared);

}  // namespace idefics::http
