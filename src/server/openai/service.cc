#include "server/openai/service.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "server/openai/generation.h"
#include "server/openai/json_body.h"
#include "server/page/page.h"
#include "server/route_files.h"

namespace idefics::openai {

namespace {

constexpr std::string_view kModels = "/v1/models/";
constexpr size_t kMaxTokenizeJobs = 32;
constexpr int kTextThreads = 1, kPictureThreads = 3;

int64_t now() {
  return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

// "application/json" or "application/json; charset=utf-8".
bool is_json(std::string_view content_type) {
  const std::string type = http::lower(content_type);
  const size_t end = std::min(type.find(';'), type.size());
  if (http::trimmed(std::string_view(type).substr(0, end)) != "application/json") return false;
  const size_t charset = type.find("charset=");
  if (charset == std::string::npos) return true;
  const std::string_view name = std::string_view(type).substr(charset + 8);
  return name.starts_with("utf-8") || name.starts_with("\"utf-8\"");
}

// "Loading model", in the form that health checks of llama-server's clients know.
http::Response unavailable_health(std::string_view message) {
  http::Response response =
      json_response(503, {{"error", {{"code", 503}, {"message", message}, {"type", "unavailable_error"}}}});
  response.headers.emplace_back("retry-after", "1");
  return response;
}

http::Response ok() { return json_response(200, {{"status", "ok"}}); }

// What an exception says to the client, and to the log. Called in a catch block.
ApiError error_of_current_exception(http::Headers& notes) {
  const auto noted = [&](const ApiError& error, std::string_view detail) {
    notes.emplace_back("code", error.code);
    if (!error.param.empty()) notes.emplace_back("param", error.param);
    if (error.status >= 500) notes.emplace_back("detail", detail);
    return error;
  };
  try {
    throw;
  } catch (const ApiError& e) {
    return noted(e, e.what());
  } catch (const Error& e) {
    return noted(from_engine(e), e.what());
  } catch (const std::bad_alloc& e) {
    return noted(unavailable("out_of_memory", "there is not enough memory for this request"), e.what());
  } catch (const std::exception& e) {
    return noted(from_engine(Error(ErrorCode::kInternal, e.what())), e.what());
  }
}

// The files, or the error of the first picture that could not be had.
std::vector<std::string> files_of(const std::vector<PictureToFetch>& pictures, std::vector<fetch::Fetched> fetched) {
  using Status = fetch::Fetched::Status;
  std::vector<std::string> files;
  bool cancelled = false;
  for (size_t i = 0; i < fetched.size(); ++i) {
    const std::string& param = pictures[i].param;
    const std::string message = fmt::format("{}: {}", param, fetched[i].problem);
    switch (fetched[i].status) {
      case Status::kGood: files.push_back(std::move(fetched[i].bytes)); break;
      case Status::kNotAllowed: throw bad_request("image_url_not_allowed", param, message);
      case Status::kTooLarge: throw bad_request("image_too_large", param, message);
      case Status::kFailed: throw bad_request("failed_to_download_image", param, message);
      case Status::kCancelled: cancelled = true;
    }
  }
  if (cancelled) throw unavailable("shutting_down", "the server is being shut down");
  return files;
}

bool has_pictures(const std::vector<Message>& messages) {
  for (const Message& message : messages) {
    for (const ContentPart& part : message.content) {
      if (part.type == ContentPart::Type::kImage) return true;
    }
  }
  return false;
}

std::vector<int32_t> ids_of(Backend& engine, const TokenizeRequest& request) {
  if (request.text) return engine.tokenize(*request.text, request.add_special_tokens);
  try {
    return engine.prompt(request.messages, request.prompt).ids;
  } catch (const Error& e) {
    const ApiError named = from_engine(e, request.picture_params);
    if (named.status == 400) throw named;
    throw;
  }
}

void place_pictures(std::vector<Message>& messages, const std::vector<PictureToFetch>& pictures,
                    std::vector<std::string> files) {
  for (size_t i = 0; i < files.size(); ++i)
    messages[pictures[i].message].content[pictures[i].part].image = std::move(files[i]);
}

}  // namespace

Service::Service(const ServiceOptions& options)
    : options_(options),
      created_(now()),
      access_(options.access),
      key_limits_(options.max_requests_per_key, access_.num_keys()),
      log_(options.log),
      metrics_(options.model_names.front(), options.version),
      text_worker_(std::make_unique<Worker>(kMaxTokenizeJobs, kTextThreads)),
      picture_worker_(std::make_unique<Worker>(kMaxTokenizeJobs, kPictureThreads)),
      fetcher_(options.fetch.hosts.empty() ? nullptr : std::make_unique<fetch::Fetcher>(options.fetch)) {}
Service::~Service() = default;

const std::vector<Service::Route>& Service::routes() {
  static const std::vector<Route> all = {
      {"POST", "/v1/chat/completions", false, &Service::chat},
      {"POST", "/v1/completions", false, &Service::complete},
      {"GET", "/v1/models", false, &Service::list_models},
      {"GET", kModels, false, &Service::get_model},  // and a name behind it
      {"POST", "/tokenize", false, &Service::tokenize},
      {"POST", "/detokenize", false, &Service::detokenize},
      {"GET", "/version", false, &Service::version},
      {"GET", "/metrics", false, &Service::metrics},
      {"GET", "/openapi.json", false, &Service::openapi},
      {"GET", "/health", true, &Service::health},
      {"GET", "/health/live", true, &Service::live},
      {"GET", "/ready", true, &Service::ready},
      // The page holds nothing but itself; what it asks for needs the key.
      {"GET", "/", true, &Service::page},
      {"GET", "/page/style.css", true, &Service::page},
      {"GET", "/page/app.js", true, &Service::page},
      {"GET", "/page/stream.js", true, &Service::page},
  };
  return all;
}

const Service::Route* Service::find_route(std::string_view method, std::string_view path) const {
  const Route* other = nullptr;
  for (const Route& route : routes()) {
    const bool below = route.path == kModels && path.size() > kModels.size() && path.starts_with(kModels);
    if (!below && (route.path != path || route.path == kModels)) continue;
    if (route.action == &Service::page && !options_.web_page) continue;
    if (route.method == method || (route.method == "GET" && method == "HEAD")) return &route;
    other = &route;
  }
  return other;
}

void Service::set_backend(Backend& backend) { backend_ = &backend; }
void Service::announce_end() { ending_ = true; }
void Service::begin_drain() { ending_ = draining_ = true; }

std::vector<std::shared_ptr<Generation>> Service::running() {
  std::vector<std::shared_ptr<Generation>> all;
  const std::lock_guard lock(mutex_);
  for (const auto& [id, generation] : running_) {
    if (std::shared_ptr<Generation> alive = generation.lock()) all.push_back(std::move(alive));
  }
  return all;
}

void Service::cancel_all() {
  if (fetcher_) fetcher_->cancel_all();
  for (const auto& generation : running()) backend().cancel(generation->id());
}

void Service::abandon_all() {
  const ApiError error = from_engine(Error(ErrorCode::kInternal, "the engine does not answer"));
  for (const auto& generation : running()) generation->abandon(error);
}

Backend& Service::backend() const {
  Backend* backend = backend_;
  if (backend == nullptr) throw unavailable("model_loading", "the model is being loaded; try again later");
  return *backend;
}

ParseContext Service::context() const {
  const Backend& engine = backend();
  return {.model_names = options_.model_names,
          .sampling = engine.default_sampling(),
          .vocab_size = engine.vocab_size(),
          .media = {.folder = options_.media_folder, .hosts = options_.fetch.hosts}};
}

double Service::stalled_ms() const {
  const Backend* backend = backend_;
  return backend == nullptr ? 0 : backend->stats().since_step_ms;
}

// ---- Before the body is read ---------------------------------------------------------------------------------------

std::optional<ApiError> Service::check(const http::Request& head) const {
  if (auto refused = access_.refuse_place(head)) return refused;
  const Route* route = find_route(head.method, head.path);
  if (route == nullptr || !route->open) {
    if (auto refused = access_.refuse_key(head)) return refused;
  }
  if (route == nullptr)
    return ApiError(404, "invalid_request_error", "route_not_found", "",
                    "there is no such route; /openapi.json lists them");
  const bool fits = route->method == head.method || (route->method == "GET" && head.method == "HEAD");
  if (!fits)
    return ApiError(405, "invalid_request_error", "method_not_allowed", "",
                    fmt::format("{} wants the method {}", route->path, route->method));
  const std::string_view encoding = head.header("content-encoding");
  if (!encoding.empty() && !http::same_word(encoding, "identity"))
    return ApiError(415, "invalid_request_error", "unsupported_media_type", "",
                    "a body with a Content-Encoding is not read; send it as it is");
  if (head.method == "POST" && !is_json(head.header("content-type")))
    return ApiError(415, "invalid_request_error", "unsupported_media_type", "",
                    "the Content-Type must be application/json");
  if (draining_ && !route->open && route->action != &Service::metrics)
    return unavailable("shutting_down", "the server is being shut down");
  return std::nullopt;
}

std::optional<http::Response> Service::admit(http::Request& head) {
  head.reply_headers = access_.cors_headers(head);
  head.reply_headers.emplace_back("x-content-type-options", "nosniff");
  if (head.method == "OPTIONS" && head.count("access-control-request-method") > 0 && !access_.refuse_place(head)) {
    return http::Response{.status = 204,
                          .headers = {{"access-control-allow-methods", "GET, POST"},
                                      {"access-control-allow-headers", "authorization, content-type, x-request-id"},
                                      {"access-control-max-age", "600"}}};
  }
  const std::optional<ApiError> error = check(head);
  if (!error) return std::nullopt;
  head.notes.emplace_back("code", error->code);
  http::Response response = to_response(*error);
  if (error->status == 405)
    response.headers.emplace_back("allow", std::string(find_route(head.method, head.path)->method));
  response.close = draining_;
  return response;
}

http::Response Service::refuse(http::Fault fault) {
  const auto wrong = [](int status, std::string_view code, const std::string& message) {
    return to_response(ApiError(status, "invalid_request_error", code, "", message));
  };
  switch (fault) {
    case http::Fault::kMalformed: return wrong(400, "invalid_value", "what came is not an HTTP/1.1 request");
    case http::Fault::kTimeout: return wrong(408, "request_timeout", "the request came too slowly");
    case http::Fault::kBodyTooLarge:
      return wrong(413, "body_too_large", "the body is too large; send smaller pictures");
    case http::Fault::kHeadersTooLarge: return wrong(431, "headers_too_large", "the headers are too large or too many");
    case http::Fault::kTooManyBodies:
      return to_response(unavailable("overloaded", "too many large bodies are being received; try again later"));
    case http::Fault::kTooManyConnections: break;
  }
  return to_response(unavailable("overloaded", "there are too many connections; try again later"));
}

// ---- Requests ------------------------------------------------------------------------------------------------------

void Service::handle(ExchangePtr exchange) {
  try {
    const http::Request& request = exchange->request();
    (this->*find_route(request.method, request.path)->action)(exchange);
  } catch (...) {
    exchange->respond(to_response(error_of_current_exception(exchange->request().notes)));
  }
}

// Under overload nearly all requests come here, and what they cost is taken from those that are answered: so nothing is
// parsed, built or thrown. The engine looks again at requests that pass.
void Service::refuse_overloaded(const ExchangePtr& exchange) {
  static const http::Response response =
      to_response(from_engine(Error(ErrorCode::kOverloaded, "found before the body was parsed")));
  exchange->request().notes.emplace_back("code", "overloaded");
  exchange->respond(response);
}

void Service::chat(const ExchangePtr& exchange) { generate(exchange, true); }
void Service::complete(const ExchangePtr& exchange) { generate(exchange, false); }

void Service::generate(const ExchangePtr& exchange, bool is_chat) {
  if (backend().is_full()) return refuse_overloaded(exchange);
  const ParseContext limits = context();
  std::shared_ptr<void> place = take_place(exchange);
  GenerationRequest request;
  {
    const json::value body = parse_body(exchange->request().body);
    std::string().swap(exchange->request().body);  // which gives the memory back
    request = is_chat ? parse_chat_request(body, limits) : parse_completion_request(body, limits);
  }
  request.place = std::move(place);
  if (request.to_fetch.empty()) return submit(exchange, std::move(request));
  std::vector<PictureToFetch> pictures = std::move(request.to_fetch);
  const auto kept = std::make_shared<GenerationRequest>(std::move(request));
  with_pictures(exchange, pictures, [this, exchange, kept, pictures](std::vector<std::string> files) {
    place_pictures(kept->engine.messages, pictures, std::move(files));
    submit(exchange, std::move(*kept));
  });
}

void Service::with_pictures(const ExchangePtr& exchange, std::vector<PictureToFetch> pictures,
                            std::function<void(std::vector<std::string> files)> then) {
  std::vector<fetch::Url> urls;
  for (const PictureToFetch& picture : pictures) urls.push_back(picture.url);
  const auto gone = std::make_shared<bool>(false);
  const std::shared_ptr<fetch::Fetcher::Batch> batch = fetcher_->start(
      std::move(urls), [exchange, gone, pictures = std::move(pictures), then](std::vector<fetch::Fetched> fetched) {
        const auto kept = std::make_shared<std::vector<fetch::Fetched>>(std::move(fetched));
        exchange->post([exchange, gone, pictures, then, kept] {
          if (*gone) return;
          try {
            then(files_of(pictures, std::move(*kept)));
          } catch (...) {
            exchange->respond(to_response(error_of_current_exception(exchange->request().notes)));
          }
        });
      });
  if (!batch) throw unavailable("overloaded", "too many requests wait for pictures already; try again later");
  exchange->on_gone([gone, weak = std::weak_ptr(batch)] {
    *gone = true;
    if (const auto alive = weak.lock()) fetch::Fetcher::cancel(*alive);
  });
}

std::shared_ptr<void> Service::take_place(const ExchangePtr& exchange) const {
  const std::optional<size_t> key = access_.find_key(exchange->request());
  if (!key) return nullptr;  // nobody needs one
  std::shared_ptr<void> place = key_limits_.take(*key);
  if (!place)
    throw ApiError(429, "rate_limit_error", "too_many_requests", "",
                   fmt::format("this key has {} requests under way already; wait for one to end", key_limits_.most()));
  return place;
}

void Service::submit(const ExchangePtr& exchange, GenerationRequest request) {
  const auto start = std::chrono::steady_clock::now();
  const auto id = std::make_shared<RequestId>(0);
  const auto generation = std::make_shared<Generation>(
      exchange, backend(), std::move(request), options_.keep_alive_ms,
      [this, exchange, start, id](const GenerationEnd& end) {
        const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
        metrics_.observe(end, time.count());
        http::Headers& notes = exchange->request().notes;
        notes.emplace_back("prompt_tokens", std::to_string(end.usage.prompt_tokens));
        notes.emplace_back("completion_tokens", std::to_string(end.usage.completion_tokens));
        if (end.error) notes.emplace_back("code", end.error->code);
        if (!end.detail.empty()) notes.emplace_back("detail", end.detail);
        const std::lock_guard lock(mutex_);
        running_.erase(*id);
      });
  generation->start();
  *id = generation->id();
  const std::lock_guard lock(mutex_);
  running_[*id] = generation;
}

void Service::run_aside(Worker& worker, const ExchangePtr& exchange, std::function<json::value()> job) {
  const bool accepted = worker.run([exchange, job = std::move(job)] {
    http::Response response;
    http::Headers notes;
    try {
      response = json_response(200, job());
    } catch (...) {
      response = to_response(error_of_current_exception(notes));
    }
    exchange->post([exchange, response = std::move(response), notes = std::move(notes)] {
      exchange->request().notes = notes;
      exchange->respond(response);
    });
  });
  if (!accepted) throw unavailable("overloaded", "too many requests wait already; try again later");
}

void Service::tokenize(const ExchangePtr& exchange) {
  Backend& engine = backend();
  const auto job =
      std::make_shared<TokenizeRequest>(parse_tokenize_request(parse_body(exchange->request().body), context()));
  if (job->to_fetch.empty()) return tokenize(exchange, engine, job);
  with_pictures(exchange, job->to_fetch, [this, exchange, &engine, job](std::vector<std::string> files) {
    place_pictures(job->messages, job->to_fetch, std::move(files));
    tokenize(exchange, engine, job);
  });
}

void Service::tokenize(const ExchangePtr& exchange, Backend& engine, const std::shared_ptr<TokenizeRequest>& job) {
  Worker& worker = has_pictures(job->messages) ? *picture_worker_ : *text_worker_;
  run_aside(worker, exchange, [&engine, job]() -> json::value {
    const TokenizeRequest& request = *job;
    const std::vector<int32_t> ids = ids_of(engine, request);
    json::object out = {
        {"count", ids.size()}, {"max_model_len", engine.max_model_len()}, {"tokens", json::value_from(ids)}};
    if (request.token_strings) {
      json::array names;
      for (const int32_t id : ids) names.emplace_back(engine.detokenize(std::span(&id, 1)));
      out["token_strs"] = std::move(names);
    }
    return out;
  });
}

void Service::detokenize(const ExchangePtr& exchange) {
  Backend& engine = backend();
  const std::vector<int32_t> ids = parse_detokenize_request(parse_body(exchange->request().body), context());
  run_aside(*text_worker_, exchange, [&engine, ids]() -> json::value { return {{"prompt", engine.detokenize(ids)}}; });
}

// ---- What there is -------------------------------------------------------------------------------------------------

json::object Service::model_json(const std::string& name) const {
  const Backend* engine = backend_;
  json::object out = {{"id", name},
                      {"object", "model"},
                      {"created", created_},
                      {"owned_by", "idefics"},
                      {"root", options_.model_names.front()},
                      {"parent", nullptr}};
  if (engine != nullptr) out["max_model_len"] = engine->max_model_len();
  return out;
}

void Service::list_models(const ExchangePtr& exchange) {
  json::array list;
  for (const std::string& name : options_.model_names) list.emplace_back(model_json(name));
  exchange->respond(json_response(200, json::object{{"object", "list"}, {"data", std::move(list)}}));
}

void Service::get_model(const ExchangePtr& exchange) {
  const std::string name = exchange->request().path.substr(kModels.size());
  const auto& names = options_.model_names;
  if (std::find(names.begin(), names.end(), name) == names.end())
    throw ApiError(404, "invalid_request_error", "model_not_found", "model",
                   fmt::format("there is no such model here, but \"{}\"", names.front()));
  exchange->respond(json_response(200, model_json(name)));
}

void Service::live(const ExchangePtr& exchange) { exchange->respond(ok()); }

void Service::health(const ExchangePtr& exchange) {
  if (ending_) return exchange->respond(unavailable_health("Shutting down"));
  exchange->respond(backend_ == nullptr ? unavailable_health("Loading model") : ok());
}

void Service::ready(const ExchangePtr& exchange) {
  if (stalled_ms() > options_.stall_ms) return exchange->respond(unavailable_health("The engine does not answer"));
  health(exchange);
}

void Service::version(const ExchangePtr& exchange) {
  exchange->respond(json_response(200, {{"version", options_.version}}));
}

void Service::metrics(const ExchangePtr& exchange) {
  const Backend* engine = backend_;
  std::optional<EngineStats> stats;
  if (engine != nullptr) stats = engine->stats();
  exchange->respond({.status = 200,
                     .headers = {{"content-type", "text/plain; version=0.0.4; charset=utf-8"}},
                     .body = metrics_.text(stats ? &*stats : nullptr, connections_ ? connections_() : 0)});
}

void Service::openapi(const ExchangePtr& exchange) {
  exchange->respond({.status = 200,
                     .headers = {{"content-type", "application/json"}, {"cache-control", "no-store"}},
                     .body = std::string(files::openapi_json)});
}

void Service::page(const ExchangePtr& exchange) { exchange->respond(page::respond(exchange->request().path)); }

// ---- The log -------------------------------------------------------------------------------------------------------

void Service::answered(const http::Request& request, int status, double ms) {
  metrics_.count_response(status);
  http::Headers fields = {{"id", request.id},
                          {"peer", request.peer},
                          {"method", request.method},
                          {"path", request.path},
                          {"status", std::to_string(status)},
                          {"ms", fmt::format("{:.1f}", ms)}};
  fields.insert(fields.end(), request.notes.begin(), request.notes.end());
  if (status >= 500) return log_.warning("request", fields);
  log_.info("request", fields);
}

}  // namespace idefics::openai
