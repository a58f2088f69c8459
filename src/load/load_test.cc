// Against servers that misbehave. Against a good one: tests/e2e/bench_serve_test.cc.
#include "load/load.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "idefics/error.h"

namespace idefics::load {
namespace {

const std::string kHead = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";
const std::string kModels =
    "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 29\r\n\r\n{\"data\":[{\"id\":\"its-model\"}]} ";
std::string piece(const std::string& text) {
  return "data: {\"choices\":[{\"delta\":{\"content\":\"" + text + "\"}}]}\n\n";
}

// Lists a model, and answers everything else with the same bytes, after a pause, and then nothing for a while.
class FakeServer {
 public:
  explicit FakeServer(std::string answer, int pause_ms = 0, int stall_ms = 0)
      : answer_(std::move(answer)), pause_ms_(pause_ms), stall_ms_(stall_ms) {
    fd_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    EXPECT_EQ(::bind(fd_, reinterpret_cast<sockaddr*>(&address), size), 0);
    EXPECT_EQ(::listen(fd_, 100), 0);
    ::getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] { accept_all(); });
  }
  FakeServer(const FakeServer&) = delete;
  FakeServer& operator=(const FakeServer&) = delete;
  ~FakeServer() {
    ending_ = true;
    thread_.join();
    for (std::thread& one : talks_) one.join();
    ::close(fd_);
  }

  LoadOptions options(int requests = 3) const {
    LoadOptions out;
    out.url = "http://127.0.0.1:" + std::to_string(port_) + "/v1/";
    out.num_requests = requests;
    out.max_tokens = 4;
    out.timeout_ms = 5000;
    return out;
  }
  // The last request as it came.
  std::string last() const { return last_; }
  int asked() const { return asked_; }

 private:
  void accept_all() {
    while (!ending_) {
      pollfd poll{fd_, POLLIN, 0};
      if (::poll(&poll, 1, 10) <= 0) continue;
      const int client = ::accept(fd_, nullptr, nullptr);
      talks_.emplace_back([this, client] {
        talk(client);
        ::close(client);
      });
    }
  }

  void talk(int client) {
    std::string in;
    char block[4096];
    while (in.find("\r\n\r\n") == std::string::npos) {
      const ssize_t n = ::recv(client, block, sizeof block, 0);
      if (n <= 0) return;
      in.append(block, static_cast<size_t>(n));
    }
    const bool list = in.starts_with("GET /v1/models ");
    if (!list) {
      last_ = in;
      ++asked_;
      wait(pause_ms_);
    }
    const std::string& out = list ? kModels : answer_;
    for (size_t at = 0; at < out.size();) {
      const ssize_t n = ::send(client, out.data() + at, out.size() - at, MSG_NOSIGNAL);
      if (n <= 0) return;
      at += static_cast<size_t>(n);
    }
    if (!list) wait(stall_ms_);
  }

  void wait(int ms) const {
    for (int i = 0; i < ms && !ending_; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }

  const std::string answer_;
  const int pause_ms_, stall_ms_;
  int fd_ = -1, port_ = 0;
  std::atomic<bool> ending_ = false;
  std::atomic<int> asked_ = 0;
  std::string last_;
  std::vector<std::thread> talks_;
  std::thread thread_;
};

TEST(Load, a_whole_answer_is_counted) {
  const FakeServer server(kHead + piece("a") + piece("b") + "data: [DONE]\n\n");
  const LoadReport report = run_load(server.options());
  EXPECT_EQ(report.requests, 3);
  EXPECT_EQ(report.completed, 3);
  EXPECT_EQ(report.output_tokens, 6);
  EXPECT_EQ(report.itl.count, 3);
  EXPECT_GT(report.duration_s, 0);
  EXPECT_LE(report.ttft.max, report.e2el.max);
  EXPECT_NE(server.last().find(R"("model":"its-model")"), std::string::npos) << server.last();
  EXPECT_NE(server.last().find("POST /v1/chat/completions "), std::string::npos) << server.last();
}

TEST(Load, whatever_a_server_does_it_is_counted_once) {
  struct Case {
    std::string name, bytes, problem;
    bool refused = false;
  };
  const std::vector<Case> cases = {
      {"closes at once", "", "Server returned nothing"},
      {"closes in the head", "HTTP/1.1 200 OK\r\nConte", ""},
      {"no HTTP", "rubbish\r\n\r\nrubbish", "Unsupported protocol"},
      {"a number that is none", "HTTP/1.1 99999 X\r\n\r\n", ""},
      {"closes in an answer", kHead + piece("a"), "not complete"},
      {"closes in a chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\nabc", ""},
      {"a chunk that is none", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", ""},
      {"less than it promised", "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nabc", ""},
      {"a page", kHead + "<html></html>", "not complete"},
      {"no JSON", kHead + "data: {\"choices\":[\n\n", "an event of the answer"},
      {"an endless head", "HTTP/1.1 200 OK\r\n" + std::string(100'000, 'x') + ": y\r\n\r\n", ""},
      {"many headers",
       "HTTP/1.1 200 OK\r\n" +
           [] {
             std::string out;
             for (int i = 0; i < 20'000; ++i) out += "x: yyyyyyyyyyyyyyyyyyyyy\r\n";
             return out;
           }() +
           "\r\n",
       "head of the response is too large"},
      {"an endless event", kHead + "data: " + std::string(6'000'000, 'x'), "too large"},
      {"an error", "HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\n{}", "status 500"},
      {"elsewhere", "HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n", "status 302"},
      {"overloaded", "HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\n{}", "", true},
      {"too many", "HTTP/1.1 429 No\r\nContent-Length: 0\r\n\r\n", "", true},
  };
  for (const Case& one : cases) {
    const FakeServer server(one.bytes);
    const LoadReport report = run_load(server.options(2));
    EXPECT_EQ(report.requests, 2) << one.name;
    EXPECT_EQ(report.completed, 0) << one.name;
    EXPECT_EQ(report.refused, one.refused ? 2 : 0) << one.name;
    EXPECT_EQ(report.failed, one.refused ? 0 : 2) << one.name;
    EXPECT_EQ(report.e2el.count, 0) << one.name;
    if (one.refused) continue;
    ASSERT_EQ(report.problems.size(), 1u) << one.name;
    EXPECT_NE(report.problems.begin()->first.find(one.problem), std::string::npos)
        << one.name << ": " << report.problems.begin()->first;
  }
}

TEST(Load, a_server_that_stalls_runs_into_the_time_limit) {
  const FakeServer server(kHead + piece("a"), 0, 60'000);
  LoadOptions options = server.options(4);
  options.timeout_ms = 300;
  options.concurrency = 4;
  const LoadReport report = run_load(options);
  EXPECT_EQ(report.failed, 4);
  EXPECT_LT(report.duration_s, 3);
}

TEST(Load, an_open_loop_does_not_wait_for_answers_and_a_closed_one_does) {
  const FakeServer server(kHead + piece("a") + "data: [DONE]\n\n", 100);
  LoadOptions open = server.options(20);
  open.rate = 100;
  open.even = true;
  const LoadReport report = run_load(open);
  EXPECT_EQ(report.completed, 20);
  EXPECT_GE(report.duration_s, 0.19 + 0.1) << "the last begins after 190 ms";
  EXPECT_LT(report.duration_s, 1.5) << "they do not wait for each other";
  EXPECT_GE(report.ttft.p50, 100);
  LoadOptions closed = server.options(4);
  EXPECT_GE(run_load(closed).duration_s, 0.4) << "one after the other";
}

TEST(Load, a_duration_ends_it) {
  const FakeServer server(kHead + piece("a") + "data: [DONE]\n\n");
  LoadOptions options = server.options(1'000'000);
  options.rate = 50;
  options.even = true;
  options.duration_s = 0.5;
  EXPECT_EQ(run_load(options).completed, 25);
  options.rate.reset();
  options.duration_s = 0.2;
  const LoadReport report = run_load(options);
  EXPECT_GE(report.completed, 1);
  EXPECT_LT(report.duration_s, 2);
}

TEST(Load, stopping_leaves_what_there_is) {
  const FakeServer server(kHead + piece("a"), 0, 60'000);
  int asked = 0;
  const LoadReport report = run_load(server.options(), [&] { return ++asked > 3; });
  EXPECT_EQ(report.requests, 0);
}

TEST(Load, no_server_and_no_url_are_errors) {
  const auto code_of = [](const std::string& url) {
    LoadOptions options;
    options.url = url;
    try {
      run_load(options);
    } catch (const Error& e) {
      EXPECT_EQ(std::string(e.what()).find('\n'), std::string::npos);
      return e.code();
    }
    return ErrorCode::kInternal;
  };
  EXPECT_EQ(code_of("127.0.0.1:8000"), ErrorCode::kUsage);
  EXPECT_EQ(code_of("file:///etc/passwd"), ErrorCode::kUsage);
  EXPECT_EQ(code_of(""), ErrorCode::kUsage);
  EXPECT_EQ(code_of("http://"), ErrorCode::kIo);
  EXPECT_EQ(code_of("http://127.0.0.1:1"), ErrorCode::kIo);
  EXPECT_EQ(code_of("unix:/no/such/socket"), ErrorCode::kIo);
}

TEST(Load, pictures_go_as_data_urls) {
  LoadOptions options;
  options.prompt = "What \"is\" it?";
  options.ignore_eos = true;
  const std::string picture = "\x89PNG\r\n";
  const json::value body = parse_json(request_body(options, "m", &picture), "body");
  EXPECT_EQ(body.at("model"), "m");
  EXPECT_EQ(body.at("ignore_eos"), true);
  const json::value& content = body.at("messages").at(0).at("content");
  EXPECT_EQ(content.at(0).at("image_url").at("url"), "data:image/png;base64,iVBORw0K");
  EXPECT_EQ(content.at(1).at("text"), json::string(options.prompt));
  for (const auto& [bytes, text] :
       std::vector<std::pair<std::string, std::string>>{{"BM", "Qk0="}, {"BMa", "Qk1h"}, {"BMab", "Qk1hYg=="}})
    EXPECT_TRUE(std::string(parse_json(request_body(options, "", &bytes), "body")
                                .at("messages")
                                .at(0)
                                .at("content")
                                .at(0)
                                .at("image_url")
                                .at("url")
                                .as_string())
                    .ends_with("," + text));
  EXPECT_FALSE(parse_json(request_body(options, "", nullptr), "body").as_object().contains("model"));
}

}  // namespace
}  // namespace idefics::load
