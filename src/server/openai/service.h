// The routes of the OpenAI interface over one engine.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "server/fetch/fetcher.h"
#include "server/http/exchange.h"
#include "server/openai/access.h"
#include "server/openai/backend.h"
#include "server/openai/generation.h"
#include "server/openai/key_limits.h"
#include "server/openai/log.h"
#include "server/openai/metrics.h"
#include "server/openai/requests.h"
#include "server/openai/worker.h"

namespace idefics::openai {

struct ServiceOptions {
  std::vector<std::string> model_names = {"model"};  // the first one names the answers; the others are accepted as well
  std::string version;
  Access::Options access;
  std::filesystem::path media_folder;  // empty: no file: URLs
  fetch::FetchOptions fetch = {};      // no hosts: no https: URLs
  int max_requests_per_key = 0;        // answers that one key may have under way; 0: as many as fit
  bool web_page = true;
  LogFormat log = LogFormat::kText;
  int keep_alive_ms = 5000;  // of silence in a stream; proxies and clients give up after 30 s or more
  int stall_ms = 10'000;     // without a step while work waits: not ready
};

// Until an engine is given to it, and from begin_drain() on, it answers that it is not available.
// Threads: any.
class Service : public http::Handler {
 public:
  explicit Service(const ServiceOptions& options);
  ~Service() override;

  // `backend` must outlive the threads of the HTTP server.
  void set_backend(Backend& backend);
  // How /metrics counts connections. Before the server starts.
  void count_connections(std::function<int()> count) { connections_ = std::move(count); }
  // /health and /ready say that it will end; requests are still taken.
  void announce_end();
  // New requests are refused; those that run go on.
  void begin_drain();
  // Ends what still runs, with an error for its client.
  void cancel_all();
  // For how long the engine has made no step while work waits.
  double stalled_ms() const;
  // Tells the clients of all that runs that the server failed, without the engine, which does not answer any more.
  void abandon_all();
  // Ends the service's own threads: behind the end of the server's threads, and before the engine goes.
  void close() { fetcher_.reset(), text_worker_.reset(), picture_worker_.reset(); }
  Log& log() { return log_; }

  std::optional<http::Response> admit(http::Request& head) override;
  void handle(std::shared_ptr<http::Exchange> exchange) override;
  http::Response refuse(http::Fault fault) override;
  void answered(const http::Request& request, int status, double ms) override;

  struct Route {
    std::string_view method, path;
    bool open;  // needs no key
    void (Service::*action)(const std::shared_ptr<http::Exchange>&);
  };
  static const std::vector<Route>& routes();

 private:
  using ExchangePtr = std::shared_ptr<http::Exchange>;

  std::optional<ApiError> check(const http::Request& head) const;
  // The route of a path, whatever its method; null when there is none.
  const Route* find_route(std::string_view method, std::string_view path) const;
  Backend& backend() const;  // ApiError 503 when there is none
  ParseContext context() const;

  void chat(const ExchangePtr& exchange);
  void complete(const ExchangePtr& exchange);
  void generate(const ExchangePtr& exchange, bool is_chat);
  static void refuse_overloaded(const ExchangePtr& exchange);
  void tokenize(const ExchangePtr& exchange);
  void tokenize(const ExchangePtr& exchange, Backend& engine, const std::shared_ptr<TokenizeRequest>& job);
  void detokenize(const ExchangePtr& exchange);
  void list_models(const ExchangePtr& exchange);
  void get_model(const ExchangePtr& exchange);
  void health(const ExchangePtr& exchange);
  void ready(const ExchangePtr& exchange);
  void live(const ExchangePtr& exchange);
  void version(const ExchangePtr& exchange);
  void metrics(const ExchangePtr& exchange);
  void openapi(const ExchangePtr& exchange);
  void page(const ExchangePtr& exchange);

  // A place among the requests of the exchange's key. ApiError 429 when there is none.
  std::shared_ptr<void> take_place(const ExchangePtr& exchange) const;
  void submit(const ExchangePtr& exchange, GenerationRequest request);
  // Goes on with `then` on the exchange's thread when the pictures are here, or answers with what was wrong.
  void with_pictures(const ExchangePtr& exchange, std::vector<PictureToFetch> pictures,
                     std::function<void(std::vector<std::string> files)> then);
  std::vector<std::shared_ptr<Generation>> running();
  json::object model_json(const std::string& name) const;
  // Runs `job` on a worker and answers with what it returns or throws.
  static void run_aside(Worker& worker, const ExchangePtr& exchange, std::function<json::value()> job);

  const ServiceOptions options_;
  const int64_t created_;
  const Access access_;
  const KeyLimits key_limits_;
  Log log_;
  Metrics metrics_;
  std::atomic<Backend*> backend_ = nullptr;
  std::atomic<bool> ending_ = false, draining_ = false;
  std::function<int()> connections_;
  std::mutex mutex_;
  std::map<RequestId, std::weak_ptr<Generation>> running_;
  // Pictures may take seconds to decode, one beside the other, and texts do not wait for them.
  std::unique_ptr<Worker> text_worker_, picture_worker_;
  std::unique_ptr<fetch::Fetcher> fetcher_;  // null when there are no hosts
};

}  // namespace idefics::openai
