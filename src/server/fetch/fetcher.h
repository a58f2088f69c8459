// Pictures from other servers.
#pragma once

#include <sys/socket.h>

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "server/fetch/address.h"
#include "server/fetch/url.h"

namespace idefics::fetch {

struct FetchOptions {
  AllowedHosts hosts;
  size_t max_bytes = 10'000'000;              // of a picture
  size_t max_batch_bytes = size_t{32} << 20;  // of the pictures of one request
  int timeout_ms = 10'000;                    // of a picture, redirects included
  int max_redirects = 3;
  int threads = 4;
  size_t max_batches = 16;  // requests at a time; more are refused

  // Which addresses may be connected to. Tests let themselves in here.
  std::function<bool(const sockaddr&)> allowed_address = is_global;
  // Entries for CURLOPT_RESOLVE, asked for at each hop, instead of what the system says; empty: the system.
  std::function<std::vector<std::string>(const Origin&)> resolve = {};
  // A file of certificates instead of the system's.
  std::string certificates = {};
};

struct Fetched {
  enum class Status { kGood, kNotAllowed, kTooLarge, kFailed, kCancelled };
  Status status = Status::kFailed;
  std::string bytes = {};    // kGood
  std::string problem = {};  // otherwise: a sentence about it, without the URL
};

// Fetches on threads of its own. Only from hosts that are listed and from addresses that are global, which is looked at
// for each connection, when it is made and again before anything is asked: what a name means may change at any time.
// Redirects are followed only to what would be allowed by itself. Nothing of the environment is used, no proxy, netrc
// or cookie, and bodies are taken as they come. Threads: any.
class Fetcher {
 public:
  class Batch;
  explicit Fetcher(FetchOptions options);
  ~Fetcher();  // cancels; what has not begun is dropped, its `done` with it

  const AllowedHosts& hosts() const { return options_.hosts; }
  // Fetches the pictures of one request. `done` is called once on a thread of the fetcher, with one entry for each URL.
  // Null when too many requests wait already.
  std::shared_ptr<Batch> start(std::vector<Url> urls, std::function<void(std::vector<Fetched>)> done);
  // Ends it within a second; `done` comes all the same.
  static void cancel(Batch& batch);
  void cancel_all();

 private:
  struct Task {
    std::shared_ptr<Batch> batch;
    size_t index;
  };
  void work();
  Fetched fetch(const Url& url, Batch& batch) const;

  const FetchOptions options_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Task> tasks_;
  std::vector<std::weak_ptr<Batch>> batches_;
  bool ending_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace idefics::fetch
