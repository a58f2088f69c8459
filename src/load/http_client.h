// Many HTTP requests at once from one thread. Its .cc is the only file that knows libcurl.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace idefics::load {

struct HttpRequest {
  std::string url;        // http: or https:
  std::string unix_path;  // connect to this socket instead of the URL's host
  std::vector<std::string> headers;
  std::shared_ptr<const std::string> body;  // null: GET, else POST
  int timeout_ms = 600'000;                 // of the whole request
};

class HttpClient {
 public:
  HttpClient();  // Error{kOutOfMemory} when libcurl cannot begin
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;
  ~HttpClient();  // drops what runs; its callbacks are not called

  // A piece of a body; false: no more of it.
  using OnBytes = std::function<bool(int status, std::string_view bytes)>;
  // Once for each request. `problem`: why the response is not complete, empty when it is; `status` 0: no response.
  using OnEnd = std::function<void(int status, const std::string& problem)>;
  // Callbacks come from within run(); they may call start().
  void start(HttpRequest request, OnBytes on_bytes, OnEnd on_end);
  // Sends and receives; returns when something happened or `timeout_ms` passed.
  void run(int timeout_ms);
  int running() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace idefics::load
