// The server under load, from a process of its own: many connections, overload, clients that vanish, crawl or send
// rubbish. Beside it a canary: a fixed request whose answer never changes by a byte.
//
// Small by default; IDEFICS_LOAD=full is what tools/long_runs does, with the numbers of docs/security.md and with
// limits on figures that only many connections or a long time make exact.
#include "load/load.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <atomic>
#include <fstream>
#include <mutex>
#include <random>
#include <thread>

#include "idefics/engine.h"
#include "program.h"
#include "server/http/test_client.h"
#include "server_program.h"

namespace idefics::e2e {
namespace {

using Clock = std::chrono::steady_clock;
using Random = std::mt19937_64;
using http::TestClient;

bool full() {
  const char* value = std::getenv("IDEFICS_LOAD");
  return value != nullptr && std::string_view(value) == "full";
}
int count_of(int small, int large) { return full() ? large : small; }

void sleep_ms(int ms) { std::this_thread::sleep_for(std::chrono::milliseconds(ms)); }
double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// For people and docs/; the limits are expectations.
void say(const std::string& line) { std::cout << "[  FIGURE  ] " << line << std::endl; }

void allow_many_descriptors() {
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = std::min<rlim_t>(limit.rlim_max, 20'000);
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

// ---- Requests

std::string post(const std::string& path, const std::string& body) {
  return fmt::format(
      "POST {} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{}", path,
      body.size(), body);
}
std::string get(const std::string& path) { return fmt::format("GET {} HTTP/1.1\r\nHost: localhost\r\n\r\n", path); }

const std::string& card_url() {
  static const std::string url =
      "data:image/png;base64," + run_command("base64 -w0 " + (tiny_cards() / "samples/06.png").string()).out;
  return url;
}

std::string picture_body(const std::string& more = "") {
  return fmt::format(R"({{"messages":[{{"role":"user","content":[{{"type":"image_url","image_url":{{"url":"{}"}}}},)"
                     R"({{"type":"text","text":"How many shapes are there?"}}]}}],"max_tokens":12{}}})",
                     card_url(), more);
}
std::string text_body(int max_tokens, const std::string& more = "") {
  return fmt::format(R"({{"messages":[{{"role":"user","content":"Hi"}}],"max_tokens":{}{}}})", max_tokens, more);
}
std::string completion_body(const std::string& prompt, int max_tokens, bool stream) {
  return fmt::format(R"({{"prompt":"{}","max_tokens":{},"ignore_eos":true,"stream":{}}})", prompt, max_tokens, stream);
}

// ---- The server, looked at from outside

double metric(const ServerProgram& server, const std::string& name) {
  const std::string text = "\n" + TestClient(server.port()).ask(get("/metrics")).body;
  const size_t at = text.find("\n" + name + "{");
  if (at == std::string::npos) return -1;
  return std::stod(text.substr(text.find("} ", at) + 2));
}

template <typename Condition>
bool soon(Condition condition, double seconds) {
  for (const auto start = Clock::now(); seconds_since(start) < seconds; sleep_ms(10)) {
    if (condition()) return true;
  }
  return condition();
}

// No request is open, and no page is held by one.
bool nothing_runs(const ServerProgram& server) {
  return metric(server, "vllm:num_requests_running") == 0 && metric(server, "vllm:num_requests_waiting") == 0 &&
         metric(server, "vllm:kv_cache_usage_perc") == 0;
}

// The number of responses with one of these statuses so far.
double responses(const ServerProgram& server, const std::vector<std::string>& statuses) {
  const std::string text = TestClient(server.port()).ask(get("/metrics")).body;
  double sum = 0;
  for (const std::string& status : statuses) {
    const size_t at = text.find("status=\"" + status + "\"");
    if (at != std::string::npos) sum += std::stod(text.substr(text.find("} ", at) + 2));
  }
  return sum;
}

// Without refusals.
double server_errors(const ServerProgram& server) { return responses(server, {"500", "501", "502", "504"}); }
double answers(const ServerProgram& server) { return responses(server, {"200"}); }

class Canary {
 public:
  explicit Canary(const ServerProgram& server) : server_(server), expected_(ask()) {
    EXPECT_NE(expected_.find("There are three shapes."), std::string::npos) << expected_;
    thread_ = std::thread([this] {
      while (!ending_) {
        const auto start = Clock::now();
        const std::string text = ask();
        if (text == "refused") {
          ++refused_;
        } else {
          times_.push_back(1000 * seconds_since(start));
          if (text != expected_ && wrong_.empty()) wrong_ = text.empty() ? "no answer" : text;
        }
        sleep_ms(20);
      }
    });
  }
  Canary(const Canary&) = delete;
  Canary& operator=(const Canary&) = delete;
  ~Canary() {
    ending_ = true;
    thread_.join();
    EXPECT_EQ(wrong_, "") << "wanted " << expected_;
    EXPECT_EQ(ask(), expected_) << "behind it all";
    const load::Spread spread = load::spread_of(times_);
    say(fmt::format("canary: {} answers without a changed byte, {} refusals; median {:.1f} ms, p99 {:.1f} ms",
                    spread.count, refused_, spread.p50, spread.p99));
  }

 private:
  // The answer without the parts that are numbers and times of the request.
  std::string ask() const {
    TestClient client(server_.port());
    client.send(post("/v1/chat/completions", picture_body()));
    const http::Reply reply = client.read(60'000);
    if (reply.status == 503) return "refused";
    const size_t from = reply.body.find("\"choices\""), to = reply.body.find(",\"prompt_tokens_details\"");
    return reply.status == 200 && to != std::string::npos ? reply.body.substr(from, to - from) : reply.body;
  }

  const ServerProgram& server_;
  const std::string expected_;
  std::string wrong_;
  int refused_ = 0;
  std::vector<double> times_;
  std::atomic<bool> ending_ = false;
  std::thread thread_;
};

// Calls `one(index, random)` for all of 0 ... count - 1, from several threads.
template <typename One>
void for_each(int count, int threads, One one) {
  std::atomic<int> next = 0;
  std::vector<std::thread> all;
  for (int t = 0; t < threads; ++t) {
    all.emplace_back([&] {
      for (int i = next++; i < count; i = next++) {
        Random random(static_cast<uint64_t>(i));
        one(i, random);
      }
    });
  }
  for (std::thread& thread : all) thread.join();
}

int below(Random& random, int n) { return static_cast<int>(random() % static_cast<uint64_t>(n)); }

// ---- Connections

constexpr double kMostKibPerConnection = 32;
// What an allocator may add to a process whatever comes; the share of one connection only shows among many.
constexpr double kNoiseKib = 1024;

void expect_small(const std::string& what, double grown_kib, int connections) {
  say(fmt::format("{} {} connections: {:.1f} KiB each", connections, what, grown_kib / connections));
  EXPECT_LE(grown_kib, kMostKibPerConnection * connections + (full() ? 0 : kNoiseKib)) << what;
}

TEST(Load, connections_take_little_memory) {
  allow_many_descriptors();
  const int num_idle = count_of(200, 1000), num_streams = count_of(48, 256);
  const ServerProgram server({"--threads", "1", "--max-connections", "3000", "--max-num-seqs", "256", "--max-queue",
                              "300", "--header-timeout", "600", "--keep-alive-timeout", "600"});
  // What the engine itself touches with its first requests is no matter of connections: all pages, every buffer of a
  // step, and the memory that each thread of the preparation keeps for itself, are used once.
  load::LoadOptions warm;
  warm.url = server.url();
  warm.prompt = "Hi";
  warm.concurrency = 64;
  warm.num_requests = 64;
  warm.max_tokens = count_of(400, 1900);
  warm.ignore_eos = true;
  EXPECT_EQ(load::run_load(warm).completed, 64);
  const Canary canary(server);
  const std::string large = post("/tokenize", R"({"prompt":"a","user":")" + std::string(200'000, 'x') + "\"}");
  EXPECT_EQ(TestClient(server.port()).ask(large).status, 200);
  sleep_ms(300);
  const int descriptors = server.descriptors();

  const auto before_idle = static_cast<double>(server.rss_kib());
  std::vector<std::unique_ptr<TestClient>> idle;
  for (int i = 0; i < num_idle; ++i) {
    idle.push_back(std::make_unique<TestClient>(server.port()));
    // Every second one is new, every other one is kept open behind a large request.
    if (i % 2 == 1) {
      ASSERT_EQ(idle.back()->ask(large).status, 200);
    }
  }
  ASSERT_TRUE(soon([&] { return metric(server, "idefics:connections") >= num_idle; }, 10));
  expect_small("idle", static_cast<double>(server.rss_kib()) - before_idle, num_idle);

  const auto before_streams = static_cast<double>(server.rss_kib());
  std::vector<std::unique_ptr<TestClient>> streams;
  for (int i = 0; i < num_streams; ++i) {
    streams.push_back(std::make_unique<TestClient>(server.port()));
    streams.back()->send(post("/v1/completions", completion_body("The", 110, true)));
  }
  for (const auto& stream : streams) ASSERT_TRUE(stream->receive(20'000));
  double most = 0;
  do {
    most = std::max(most, static_cast<double>(server.rss_kib()));
  } while (metric(server, "vllm:num_requests_running") > 1);
  expect_small("streaming", most - before_streams, num_streams);
  for (const auto& stream : streams) EXPECT_TRUE(stream->read(20'000).body.ends_with("data: [DONE]\n\n"));
  for (const auto& client : idle) EXPECT_EQ(client->ask(get("/version")).status, 200);
  streams.clear();
  idle.clear();
  EXPECT_TRUE(soon([&] { return server.descriptors() <= descriptors + 2; }, 10)) << server.descriptors();
}

// ---- What HTTP costs

double own_cpu_seconds() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

struct TokenCost {
  double engine_us = 0, server_us = 0;
};

TokenCost measure_token_cost(int requests, int tokens) {
  TokenCost cost;
  constexpr int kTogether = 8;
  {
    EngineOptions options;
    options.num_threads = 1;
    Engine engine = Engine::load(tiny_cards(), options);
    const auto answer_all = [&](int count) {
      for_each(count, kTogether, [&](int, Random&) {
        Request request;
        request.messages = {{"user", {ContentPart::of_text("Hi")}}};
        request.sampling.max_tokens = tokens;
        request.sampling.ignore_eos = true;
        engine.generate(request);
      });
    };
    answer_all(kTogether);
    const double before = own_cpu_seconds();
    answer_all(requests);
    cost.engine_us = 1e6 * (own_cpu_seconds() - before) / (requests * tokens);
  }
  const ServerProgram server({"--threads", "1"});
  load::LoadOptions options;
  options.url = server.url();
  options.prompt = "Hi";
  options.concurrency = kTogether;
  options.max_tokens = tokens;
  options.ignore_eos = true;
  options.num_requests = kTogether;
  EXPECT_EQ(load::run_load(options).completed, kTogether);
  options.num_requests = requests;
  const double before = server.cpu_seconds();
  const load::LoadReport report = load::run_load(options);
  cost.server_us = 1e6 * (server.cpu_seconds() - before) / (requests * tokens);
  EXPECT_EQ(report.completed, requests);
  EXPECT_EQ(report.output_tokens, int64_t{requests} * tokens);
  return cost;
}

TEST(Load, a_token_costs_the_server_little) {
  const TokenCost cost = measure_token_cost(count_of(16, 200), 200);
  say(fmt::format("CPU time of a token: engine alone {:.1f} us, through HTTP {:.1f} us, so HTTP {:.1f} us",
                  cost.engine_us, cost.server_us, cost.server_us - cost.engine_us));
  // Few requests on a busy machine say little about microseconds.
  EXPECT_LE(cost.server_us - cost.engine_us, full() ? 50 : 250);
}

// ---- Overload

// Ten times what the server can do, with answers of so many tokens; `least_goodput` is a share of its peak.
void flood(int max_tokens, double seconds, double least_goodput) {
  const ServerProgram server({"--threads", "1"});
  load::LoadOptions options;
  options.url = server.url();
  options.prompt = "Hi";
  options.max_tokens = max_tokens;
  options.ignore_eos = true;
  options.concurrency = 32;
  options.num_requests = INT64_MAX;
  options.duration_s = count_of(1, 10);
  load::run_load(options);
  const load::LoadReport peak = load::run_load(options);
  const double most = peak.per_s(peak.completed);
  say(fmt::format("answers of {} tokens, at the peak: {:.1f} a second", max_tokens, most));

  const auto before = static_cast<double>(server.rss_kib());
  options.rate = 10 * most;
  options.duration_s = seconds;
  const load::LoadReport flood = load::run_load(options);
  const auto end = Clock::now();
  const double good = flood.per_s(flood.completed);
  say(fmt::format(
      "ten times that, {:.0f} s: {} requests, {} answered, {} refused, {} failed; {:.1f} answers/s, {:.0f} % "
      "of the peak",
      flood.duration_s, flood.requests, flood.completed, flood.refused, flood.failed, good, 100 * good / most));
  say(fmt::format("a refusal took {:.1f} ms (median), {:.1f} ms (p99), {:.1f} ms at most", flood.refusal.p50,
                  flood.refusal.p99, flood.refusal.max));
  say(fmt::format("of it the generator's own delay: {:.1f} ms (median), {:.1f} ms (p99)", flood.late.p50,
                  flood.late.p99));
  EXPECT_EQ(flood.failed, 0) << json::serialize(load::load_json(flood));
  EXPECT_GT(flood.refused, flood.completed);
  EXPECT_GE(good, least_goodput * most);
  if (full()) {
    // Times count from when a request was meant to begin; what the generator was late is not the server's.
    EXPECT_LE(flood.refusal.p99, 50 + flood.late.p99);
  }
  EXPECT_TRUE(soon([&] { return nothing_runs(server); }, 5));
  EXPECT_EQ(TestClient(server.port()).ask(post("/v1/chat/completions", text_body(2))).status, 200);
  const double grown = static_cast<double>(server.rss_kib()) - before;
  say(fmt::format("recovered {:.1f} s later; {:+.1f} MiB of memory", seconds_since(end), grown / 1024));
  EXPECT_LE(seconds_since(end), 5);
  EXPECT_LE(grown, 10 * 1024);
  const Canary canary(server);
  sleep_ms(200);
}

TEST(Load, ten_times_more_than_it_can_do_leaves_it_doing_what_it_can) {
  // Of answers so short, ten times the peak is thousands of clients a second, whose connections on few CPUs the
  // generator takes from the server: so the limit is lower than what is wanted, 0.9.
  flood(100, count_of(3, 60), full() ? 0.8 : 0.5);
  if (full()) flood(800, 120, 0.9);
}

// ---- Clients that vanish

void vanish(const ServerProgram& server, Random& random) {
  static const std::vector<std::string> requests = {post("/v1/completions", completion_body("The", 300, true)),
                                                    post("/v1/completions", completion_body("A", 60, false)),
                                                    post("/v1/chat/completions", picture_body(R"(,"stream":true)")),
                                                    post("/v1/chat/completions", text_body(200, R"(,"n":3)")),
                                                    post("/tokenize", R"({"prompt":"a b c"})"),
                                                    get("/v1/models")};
  TestClient client(server.port());
  const std::string& bytes = requests[static_cast<size_t>(below(random, static_cast<int>(requests.size())))];
  client.send(below(random, 4) == 0 ? bytes.substr(0, static_cast<size_t>(random() % bytes.size())) : bytes);
  std::this_thread::sleep_for(std::chrono::microseconds(below(random, 12'000)));
  if (below(random, 2) == 0) client.receive(1);
  if (below(random, 2) == 0) client.reset();
}

TEST(Load, clients_that_vanish_leave_nothing_behind) {
  const ServerProgram server({"--threads", "1"});
  const int count = count_of(300, 10'000);
  {
    const Canary canary(server);
    sleep_ms(200);
  }
  ASSERT_TRUE(soon([&] { return nothing_runs(server); }, 10));
  const int descriptors = server.descriptors();
  const auto start = Clock::now();
  {
    const Canary canary(server);
    for_each(count, 8, [&](int, Random& random) { vanish(server, random); });
  }
  say(fmt::format("{} clients vanished in {:.1f} s", count, seconds_since(start)));
  EXPECT_TRUE(soon([&] { return nothing_runs(server); }, 10))
      << metric(server, "vllm:num_requests_running") << " run, " << metric(server, "vllm:num_requests_waiting")
      << " wait, share of pages in use " << metric(server, "vllm:kv_cache_usage_perc");
  EXPECT_TRUE(soon([&] { return server.descriptors() <= descriptors + 1; }, 10))
      << server.descriptors() << " open, before " << descriptors;
  EXPECT_EQ(server_errors(server), 0);
}

// ---- Rubbish

class Mutator {
 public:
  explicit Mutator(Random& random) : random_(random) {}

  // A request with a body that is JSON, or nearly, with something wrong in it. Complete HTTP.
  std::string wrong_body() {
    const auto& [path, text] = bodies().at(static_cast<size_t>(below(random_, static_cast<int>(bodies().size()))));
    json::value body = json::parse(text);
    for (int i = below(random_, 3); i >= 0; --i) change(body, 0);
    std::string out = json::serialize(body);
    if (below(random_, 8) == 0) damage(out, 1 + below(random_, 4));
    return post(path, out);
  }

  // A request with something wrong in its bytes: it may have no end.
  std::string wrong_bytes() {
    const auto& [path, text] = bodies().at(static_cast<size_t>(below(random_, 3)));
    std::string out = below(random_, 4) == 0 ? get("/health") : post(path, text);
    static const std::vector<std::string> lines = {"Content-Length: 5\r\n",
                                                   "Content-Length: -1\r\n",
                                                   "Content-Length: 99999999999999999999\r\n",
                                                   "Transfer-Encoding: chunked\r\n",
                                                   "Transfer-Encoding: gzip, chunked\r\n",
                                                   "Host: other\r\n",
                                                   "Expect: 100-continue\r\n",
                                                   "Connection: upgrade\r\nUpgrade: h2c\r\n",
                                                   "Content-Encoding: gzip\r\n",
                                                   " folded\r\n",
                                                   "X: " + std::string(9000, 'x') + "\r\n",
                                                   std::string("X: a\0b\r\n", 8),
                                                   "X: a\nb\r\n",
                                                   ": no name\r\n",
                                                   "Authorization: Bearer x\r\n",
                                                   "Range: bytes=0-\r\n"};
    if (below(random_, 2) == 0)
      out.insert(out.find("\r\n") + 2, lines[static_cast<size_t>(below(random_, static_cast<int>(lines.size())))]);
    if (below(random_, 2) == 0) damage(out, 1 + below(random_, 6));
    if (below(random_, 4) == 0) out.resize(static_cast<size_t>(random_() % out.size()));
    return out;
  }

 private:
  static const std::vector<std::pair<std::string, std::string>>& bodies() {
    static const std::vector<std::pair<std::string, std::string>> all = {
        {"/v1/chat/completions", text_body(3)},
        {"/v1/chat/completions", text_body(3, R"(,"stream":true,"stream_options":{"include_usage":true})")},
        {"/v1/completions", R"({"prompt":"The","max_tokens":3,"logprobs":2,"stop":["x"],"seed":1})"},
        {"/v1/chat/completions", picture_body()},
        {"/v1/chat/completions",
         text_body(3, R"(,"temperature":0.5,"top_p":0.9,"top_k":5,"min_p":0.1,"n":2,"seed":3,"stop":["a","b"],)"
                      R"("logit_bias":{"5":1},"logprobs":true,"top_logprobs":3,"presence_penalty":0.5,)"
                      R"("frequency_penalty":0.5,"repetition_penalty":1.1,"min_tokens":1,"stop_token_ids":[3])")},
        {"/v1/chat/completions",
         text_body(8, R"(,"response_format":{"type":"json_schema","json_schema":{"name":"a","schema":{"type":"object",)"
                      R"("properties":{"a":{"type":"integer","minimum":1},"b":{"enum":["x",2,null]},)"
                      R"("c":{"type":"array","items":{"type":"string","pattern":"^a+$"},"maxItems":3}},)"
                      R"("required":["a"],"additionalProperties":false}}})")},
        {"/v1/chat/completions", text_body(4, R"(,"structured_outputs":{"regex":"[a-c]{1,3}(x|y)*"})")},
        {"/v1/chat/completions", text_body(4, R"(,"structured_outputs":{"grammar":"root ::= \"a\" | \"b\" root"})")},
        {"/v1/chat/completions",
         R"({"model":"tiny-cards","messages":[{"role":"system","content":"Be brief."},{"role":"user","content":[)"
         R"({"type":"text","text":"a"},{"type":"text","text":"<image>"}]},{"role":"assistant","content":"b"},)"
         R"({"role":"user","content":"c"}],"max_completion_tokens":3,"mm_processor_kwargs":{"max_tiles":2,)"
         R"("size":{"longest_edge":512}},"continue_final_message":false,"add_generation_prompt":true})"},
        {"/v1/completions", R"({"prompt":[1,2,3],"max_tokens":2,"prompt_logprobs":1})"},
        {"/tokenize", R"({"prompt":"a b","add_special_tokens":true,"return_token_strs":true})"},
        {"/detokenize", R"({"tokens":[1,2,3]})"}};
    return all;
  }

  json::value any_value() {
    switch (below(random_, 22)) {
      case 0: return nullptr;
      case 1: return true;
      case 2: return false;
      case 3: return 0;
      case 4: return -1;
      case 5: return INT64_MAX;
      case 6: return INT64_MIN;
      case 7: return UINT64_MAX;
      case 8: return 1e308;
      case 9: return -0.5;
      case 10: return 5e-324;
      case 11: return "";
      case 12: return json::string(static_cast<size_t>(below(random_, 20'000)), 'a');
      case 13: return json::array{};
      case 14: return json::object{};
      case 15: return json::array{nullptr, 1, "a", json::object{}};
      case 16: return "\xF0\x9F\x99\x82<end_of_utterance><image>\n\x01";
      case 17: return below(random_, 300) - 100;
      case 18: return "data:image/png;base64,AAAA";
      case 19: return "http://127.0.0.1:1/x.png";
      case 20: {
        json::value deep = 1;
        for (int i = below(random_, 70); i > 0; --i) deep = json::array{deep};
        return deep;
      }
      default: return json::array(static_cast<size_t>(below(random_, 2000)), json::value("x"));
    }
  }

  // Changes one place somewhere in it.
  void change(json::value& value, int depth) {
    const bool here = below(random_, 4) == 0 && depth > 0;
    if (!here && value.is_object() && !value.get_object().empty()) return change_object(value.get_object(), depth);
    if (!here && value.is_array() && !value.get_array().empty()) {
      json::array& array = value.get_array();
      if (below(random_, 8) == 0) array.push_back(any_value());
      return change(array[static_cast<size_t>(random_() % array.size())], depth + 1);
    }
    value = any_value();
  }

  void change_object(json::object& object, int depth) {
    static const std::vector<std::string> fields = {"max_tokens",
                                                    "n",
                                                    "stream",
                                                    "stop",
                                                    "logprobs",
                                                    "top_logprobs",
                                                    "temperature",
                                                    "model",
                                                    "messages",
                                                    "tools",
                                                    "chat_template",
                                                    "seed",
                                                    "echo",
                                                    "suffix",
                                                    "best_of",
                                                    "user",
                                                    "type",
                                                    "role",
                                                    "content",
                                                    "image_url",
                                                    "url",
                                                    "detail",
                                                    "priority",
                                                    "cache_salt",
                                                    "request_id",
                                                    "response_format",
                                                    "structured_outputs",
                                                    "guided_json",
                                                    "guided_regex",
                                                    "guided_choice",
                                                    "guided_grammar",
                                                    "minimum",
                                                    "pattern",
                                                    "items",
                                                    "anyOf",
                                                    "$ref",
                                                    "properties",
                                                    "stream_options"};
    auto place = object.begin() + static_cast<std::ptrdiff_t>(random_() % object.size());
    const std::string key(place->key());
    switch (below(random_, 10)) {
      case 0: object.erase(key); return;
      case 1:
        object[fields[static_cast<size_t>(below(random_, static_cast<int>(fields.size())))]] = any_value();
        return;
      case 2: {
        const json::value kept = place->value();
        object.erase(key);
        object[key + "_"] = kept;
        return;
      }
      default: change(place->value(), depth + 1);
    }
  }

  void damage(std::string& bytes, int times) {
    for (int i = 0; i < times && !bytes.empty(); ++i) {
      const size_t at = random_() % std::min<size_t>(bytes.size(), 400);
      switch (below(random_, 4)) {
        case 0: bytes[at] = static_cast<char>(random_()); break;
        case 1: bytes.erase(at, 1 + random_() % 3); break;
        case 2: bytes.insert(at, 1, static_cast<char>(random_())); break;
        default: bytes.insert(at, bytes.substr(at, random_() % 40)); break;
      }
    }
  }

  Random& random_;
};

TEST(Load, rubbish_is_never_more_than_a_bad_request) {
  const int count = count_of(2'000, 100'000);
  const ServerProgram server({"--threads", "1", "--max-model-len", "192"});
  std::mutex mutex;
  std::map<int, int> statuses;
  int shown = 0;
  const auto start = Clock::now();
  {
    const Canary canary(server);
    for_each(count, 6, [&](int i, Random& random) {
      const bool whole = i % 2 == 0;
      Mutator mutator(random);
      const std::string bytes = whole ? mutator.wrong_body() : mutator.wrong_bytes();
      TestClient client(server.port());
      client.send(bytes);
      if (!whole) client.end();
      const http::Reply reply = client.read(30'000);
      client.reset();
      const std::lock_guard lock(mutex);
      ++statuses[reply.status];
      const bool bad = reply.status >= 500 || (whole && (!reply.complete || reply.status < 200));
      if (bad && ++shown <= 10) {
        ADD_FAILURE() << "request " << i << ": status " << reply.status << "\n"
                      << bytes.substr(0, 3000) << "\n"
                      << reply.body.substr(0, 500);
      }
    });
  }
  std::string all;
  for (const auto& [status, n] : statuses) all += fmt::format(" {} x {}", n, status);
  say(fmt::format("{} requests in {:.1f} s:{} (0: closed without a response)", count, seconds_since(start), all));
  EXPECT_EQ(shown, 0);
  EXPECT_GT(statuses[400], count / 10);
  EXPECT_GT(statuses[200], count / 50) << "some are not wrong enough";
  EXPECT_EQ(server_errors(server), 0);
  EXPECT_TRUE(soon([&] { return nothing_runs(server); }, 10));
}

// ---- Everything for a long time

void ask_something(const ServerProgram& server, int i, Random& random, std::atomic<int>& wrong) {
  TestClient client(server.port());
  if (i % 20 == 0) {
    client.send(Mutator(random).wrong_body());
    if (client.read(30'000).status >= 500) ++wrong;
    return;
  }
  if (i % 20 == 10) return vanish(server, random);
  const std::string seed = std::to_string(random() % 1000);
  const std::vector<std::string> requests = {
      post("/v1/chat/completions", picture_body()),
      post("/v1/chat/completions", picture_body(R"(,"stream":true)")),
      post("/v1/chat/completions", text_body(20, R"(,"temperature":1,"stream":true,"seed":)" + seed)),
      post("/v1/chat/completions", text_body(10, R"(,"n":2,"logprobs":true,"top_logprobs":2)")),
      post("/v1/completions", completion_body("Number " + seed, 30, true)),
      post("/v1/chat/completions", text_body(12, R"(,"structured_outputs":{"regex":"[a-f]{)" + seed + "}\"}")),
      post("/tokenize", R"({"prompt":"a )" + seed + "\"}"),
      get("/v1/models")};
  client.send(requests[static_cast<size_t>(below(random, static_cast<int>(requests.size())))]);
  const http::Reply reply = client.read(60'000);
  if (reply.status != 200 || !reply.complete) ++wrong;
}

TEST(Load, a_long_mixture_does_not_make_it_grow) {
  const int count = count_of(400, 20'000);
  const ServerProgram server({"--threads", "1"});
  std::atomic<int> wrong = 0;
  for_each(count / 10, 8, [&](int i, Random& random) { ask_something(server, i, random, wrong); });
  const auto before = static_cast<double>(server.rss_kib());
  const int descriptors = server.descriptors();
  const auto start = Clock::now();
  {
    const Canary canary(server);
    for_each(count, 8, [&](int i, Random& random) {
      Random other(random() + 1);
      ask_something(server, i, other, wrong);
    });
  }
  EXPECT_EQ(wrong, 0);
  EXPECT_TRUE(soon([&] { return nothing_runs(server); }, 10));
  const double grown = (static_cast<double>(server.rss_kib()) - before) / 1024;
  say(fmt::format("{} requests in {:.1f} s: {:+.1f} MiB of memory, from {:.1f} MiB", count, seconds_since(start), grown,
                  before / 1024));
  EXPECT_LE(grown, full() ? 10 : 30);
  EXPECT_TRUE(soon([&] { return server.descriptors() <= descriptors + 1; }, 10));
}

// ---- Slow sockets

// Clients of one kind at once, which the server closes `timeout` seconds after they have `settled`. `begin` sends what
// it begins with, `drip` a little more now and then.
template <typename Begin, typename Settle, typename Drip>
void expect_closed(const ServerProgram& server, const std::string& kind, int count, double timeout, Begin begin,
                   Settle settle, Drip drip) {
  // Meanwhile there are this many others at most: a canary, and one that asks for the metrics.
  constexpr int kOthers = 2;
  std::vector<std::unique_ptr<TestClient>> clients;
  const auto start = Clock::now();
  for (int i = 0; i < count; ++i) {
    clients.push_back(std::make_unique<TestClient>(server.port(), 4096));
    begin(*clients.back());
  }
  settle();
  const double opened = seconds_since(start);
  ASSERT_LT(opened, timeout) << "too slow a machine to tell";
  EXPECT_TRUE(soon([&] { return metric(server, "idefics:connections") >= count; }, 1)) << kind;
  double closed = 0;
  for (;;) {
    for (const auto& client : clients) drip(*client);
    closed = seconds_since(start) - opened;
    if (metric(server, "idefics:connections") <= kOthers || closed > 30) break;
    sleep_ms(50);
  }
  say(fmt::format("{} {}: the last one closed {:.2f} s after it came; the limit is {:.0f} s", count, kind, closed,
                  timeout));
  // A busy machine adds seconds of its own; the long run wants a quiet one.
  EXPECT_LE(closed, timeout + (full() ? 1 : 15)) << kind;
}

TEST(Load, slow_sockets_are_closed_in_time) {
  allow_many_descriptors();
  const ServerProgram server({"--threads", "1", "--max-connections", "1100", "--header-timeout", "2", "--body-timeout",
                              "2", "--send-timeout", "2", "--keep-alive-timeout", "2"});
  const int descriptors = server.descriptors();
  const Canary canary(server);
  const auto byte = [](TestClient& client) { client.send("a"); };
  const auto nothing = [](TestClient&) {};
  const auto at_once = [] {};
  const int count = count_of(50, 1000);
  expect_closed(server, "silent connections", count, 2, nothing, at_once, nothing);
  expect_closed(
      server, "slow heads", count, 2, [](TestClient& c) { c.send("GET / HTTP/1.1\r\nX: "); }, at_once, byte);
  const std::string body = post("/v1/chat/completions", std::string(10'000, ' '));
  expect_closed(
      server, "slow bodies", count, 2, [&](TestClient& c) { c.send(body.substr(0, body.size() - 9900)); }, at_once,
      byte);
  EXPECT_TRUE(soon([&] { return server.descriptors() <= descriptors + 3; }, 10));
}

TEST(Load, readers_that_take_nothing_are_closed_in_time) {
  allow_many_descriptors();
  // Time enough to fill the buffers of all connections, which is when it begins to run.
  const int timeout = count_of(2, 10);
  const ServerProgram server(
      {"--threads", "1", "--max-connections", "1100", "--send-timeout", std::to_string(timeout)});
  const int descriptors = server.descriptors();
  const Canary canary(server);
  std::string many;  // more answers than the buffers of a connection take
  for (int i = 0; i < 500; ++i) many += get("/openapi.json");
  // From when on there are no answers but those to the canary and to this question.
  const auto full_buffers = [&] {
    double before = -1000, now = answers(server);
    for (; now - before > 50; now = answers(server)) {
      before = now;
      sleep_ms(200);
    }
  };
  expect_closed(
      server, "readers that take nothing", count_of(50, 1000), timeout, [&](TestClient& c) { c.send(many); },
      full_buffers, [](TestClient&) {});
  EXPECT_TRUE(soon([&] { return server.descriptors() <= descriptors + 3; }, 10));
}

}  // namespace
}  // namespace idefics::e2e
