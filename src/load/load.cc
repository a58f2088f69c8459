#include "load/load.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <memory>

#include "base/utf8.h"
#include "idefics/error.h"
#include "load/answer_reader.h"
#include "load/arrivals.h"
#include "load/http_client.h"

namespace idefics::load {

namespace {

using Milliseconds = std::chrono::duration<double, std::milli>;
using Seconds = std::chrono::duration<double>;

constexpr size_t kMaxListBytes = size_t{1} << 20;
constexpr int kListTimeoutMs = 10'000;
constexpr int kMostAtOnce = 16;
// How often `stop` is asked while nothing happens.
constexpr double kWatchMs = 100;

double ms_between(Clock::time_point a, Clock::time_point b) { return Milliseconds(b - a).count(); }

std::string base64(std::string_view bytes) {
  static constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  out.reserve((bytes.size() + 2) / 3 * 4);
  for (size_t at = 0; at < bytes.size(); at += 3) {
    const size_t n = std::min<size_t>(3, bytes.size() - at);
    uint32_t group = 0;
    for (size_t i = 0; i < 3; ++i) group = group << 8 | (i < n ? static_cast<unsigned char>(bytes[at + i]) : 0U);
    for (size_t i = 0; i < 4; ++i) out += i <= n ? kDigits[group >> (18 - 6 * i) & 63] : '=';
  }
  return out;
}

std::string_view media_type(std::string_view bytes) {
  if (bytes.starts_with("\x89PNG")) return "image/png";
  if (bytes.starts_with("\xff\xd8")) return "image/jpeg";
  if (bytes.starts_with("RIFF")) return "image/webp";
  if (bytes.starts_with("GIF8")) return "image/gif";
  if (bytes.starts_with("BM")) return "image/bmp";
  return "image/tiff";
}

// Where requests go, but for the path.
HttpRequest address_of(const LoadOptions& options) {
  HttpRequest out;
  out.timeout_ms = options.timeout_ms;
  std::string url = options.url;
  if (url.starts_with("unix:")) {
    out.unix_path = url.substr(5);
    url = "http://localhost";
  }
  if (!url.starts_with("http://") && !url.starts_with("https://"))
    throw Error(ErrorCode::kUsage,
                fmt::format("--url is \"{}\", wanted http://, https:// or unix: and what follows", options.url));
  while (url.ends_with('/')) url.pop_back();
  if (url.ends_with("/v1")) url.resize(url.size() - 3);
  out.url = url;
  out.headers = {"Content-Type: application/json"};
  if (!options.api_key.empty()) out.headers.push_back("Authorization: Bearer " + options.api_key);
  return out;
}

// The first model that a server lists; empty when it lists none in a form that is known.
std::string first_model(const std::string& list) {
  try {
    const json::value body = parse_json(list, "list of models", ErrorCode::kIo);
    const JsonObject object = JsonObject::of(body, "list of models", ErrorCode::kIo);
    const json::array* data = object.find_array("data");
    if (data == nullptr || data->empty()) return "";
    return JsonObject::of(data->front(), "model", ErrorCode::kIo).find_string("id").value_or("");
  } catch (const Error&) {
    return "";
  }
}

// Asks which models there are, and so whether there is a server at all.
std::string find_model(HttpClient& client, HttpRequest request) {
  std::string body, problem;
  int status = 0;
  request.url += "/v1/models";
  request.timeout_ms = std::min(request.timeout_ms, kListTimeoutMs);
  const std::string url = request.url;
  client.start(
      std::move(request),
      [&](int, std::string_view bytes) {
        body += bytes;
        return body.size() <= kMaxListBytes;
      },
      [&](int got, const std::string& why) {
        status = got;
        problem = why;
      });
  while (client.running() > 0) client.run(static_cast<int>(kWatchMs));
  if (status == 0) throw Error(ErrorCode::kIo, fmt::format("{}: {}; is the server up?", url, problem));
  if (status == 401 || status == 403)
    throw Error(ErrorCode::kUsage,
                fmt::format("{}: the server wants a key ({}); set IDEFICS_API_KEY or give --api-key", url, status));
  return first_model(body);
}

class Run {
 public:
  Run(const LoadOptions& options, const std::function<bool()>& stop)
      : options_(options),
        stop_(stop),
        address_(address_of(options)),
        arrivals_(options.rate.value_or(1), options.even, options.seed),
        tally_(options.goal) {}

  LoadReport go() {
    prepare();
    start_ = last_end_ = Clock::now();
    if (options_.rate) plan_next();
    while (!stopped() && (more_to_come() || client_.running() > 0)) {
      begin_what_is_due();
      client_.run(patience_ms());
    }
    return tally_.report(Seconds(last_end_ - start_).count());
  }

 private:
  void prepare() {
    const std::string listed = find_model(client_, address_);
    const std::string model = options_.model.empty() ? listed : options_.model;
    address_.url += "/v1/chat/completions";
    for (const std::string& image : options_.images)
      bodies_.push_back(std::make_shared<const std::string>(request_body(options_, model, &image)));
    if (bodies_.empty()) bodies_.push_back(std::make_shared<const std::string>(request_body(options_, model, nullptr)));
  }

  bool stopped() const { return stop_ && stop_(); }

  bool more_to_come() const {
    if (begun_ >= options_.num_requests) return false;
    const double at = options_.rate ? next_ : Seconds(Clock::now() - start_).count();
    return options_.duration_s <= 0 || at < options_.duration_s;
  }

  void plan_next() { next_ = arrivals_.next(); }
  Clock::time_point next_time() const { return start_ + std::chrono::duration_cast<Clock::duration>(Seconds(next_)); }

  // A few at a time: whoever is behind must not forget to read answers.
  void begin_what_is_due() {
    for (int i = 0; i < kMostAtOnce && more_to_come(); ++i) {
      if (options_.rate) {
        const Clock::time_point meant = next_time();
        if (meant > Clock::now()) return;
        begin(meant);
        plan_next();
      } else {
        if (client_.running() >= options_.concurrency) return;
        begin(Clock::now());
      }
    }
  }

  // Until the next request is due, in whole milliseconds: sooner is not possible and later not needed.
  int patience_ms() const {
    if (!options_.rate || !more_to_come()) return static_cast<int>(kWatchMs);
    return static_cast<int>(std::clamp(std::ceil(ms_between(Clock::now(), next_time())), 0.0, kWatchMs));
  }

  void begin(Clock::time_point meant) {
    const auto reader = std::make_shared<AnswerReader>();
    HttpRequest request = address_;
    request.body = bodies_[static_cast<size_t>(begun_) % bodies_.size()];
    ++begun_;
    const double late = ms_between(meant, Clock::now());
    client_.start(
        std::move(request),
        [reader](int status, std::string_view bytes) { return status != 200 || reader->push(bytes, Clock::now()); },
        [this, reader, meant, late](int status, const std::string& problem) {
          end(*reader, meant, late, status, problem);
        });
  }

  void end(const AnswerReader& reader, Clock::time_point meant, double late, int status, const std::string& problem) {
    last_end_ = Clock::now();
    Outcome outcome{.status = status, .late_ms = late, .e2el_ms = ms_between(meant, last_end_)};
    outcome.problem = !problem.empty() ? problem : status != 200 ? fmt::format("status {}", status) : reader.problem();
    outcome.tokens = reader.tokens();
    const auto& pieces = reader.pieces();
    if (!pieces.empty()) outcome.ttft_ms = ms_between(meant, pieces.front());
    for (size_t i = 1; i < pieces.size(); ++i)
      outcome.itl_ms.push_back(static_cast<float>(ms_between(pieces[i - 1], pieces[i])));
    if (status == 503 || status == 429) {
      outcome.kind = Outcome::Kind::kRefused;
    } else if (outcome.problem.empty()) {
      outcome.kind = Outcome::Kind::kOk;
    }
    tally_.add(outcome);
  }

  const LoadOptions& options_;
  const std::function<bool()>& stop_;
  HttpRequest address_;
  Arrivals arrivals_;
  Tally tally_;
  std::vector<std::shared_ptr<const std::string>> bodies_;
  Clock::time_point start_, last_end_;
  double next_ = 0;  // seconds from the start
  int64_t begun_ = 0;
  HttpClient client_;  // goes first: its callbacks know the rest
};

}  // namespace

std::string request_body(const LoadOptions& options, const std::string& model, const std::string* image) {
  json::array content;
  if (image != nullptr) {
    const std::string url = fmt::format("data:{};base64,{}", media_type(*image), base64(*image));
    content.emplace_back(json::object{{"type", "image_url"}, {"image_url", json::object{{"url", url}}}});
  }
  content.emplace_back(json::object{{"type", "text"}, {"text", repair_utf8(options.prompt)}});
  json::object body = {{"messages", json::array{json::object{{"role", "user"}, {"content", std::move(content)}}}},
                       {"max_tokens", options.max_tokens},
                       {"temperature", 0},
                       {"stream", true},
                       {"stream_options", json::object{{"include_usage", true}}}};
  if (!model.empty()) body["model"] = model;
  if (options.ignore_eos) body["ignore_eos"] = true;
  return json::serialize(body);
}

LoadReport run_load(const LoadOptions& options, const std::function<bool()>& stop) { return Run(options, stop).go(); }

}  // namespace idefics::load
