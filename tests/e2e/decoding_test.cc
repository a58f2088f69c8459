// A server whose decoding processes are taken over by pictures: each costs its request and nothing else.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>

#include "base/files.h"
#include "decoder/decoder_pool.h"
#include "server/http/server.h"
#include "server/http/test_client.h"
#include "server/openai/engine_backend.h"
#include "server/openai/service.h"

namespace idefics::e2e {
namespace {

const std::filesystem::path kModel = std::filesystem::path(IDEFICS_SOURCE_DIR) / "models/tiny-cards";

// As `idefics serve` wires it, with processes that obey.
class HostileServer {
 public:
  explicit HostileServer(int wall_ms) {
    decoder::PoolOptions options;
    options.command = {IDEFICS_TEST_WORKER};
    options.wall_ms = wall_ms;
    pool_ = std::make_unique<decoder::DecoderPool>(options, [this](const std::string&) { ++deaths; });
    EngineOptions engine;
    engine.picture_decoder = [this](std::string_view file) {
      Image image = pool_->decode(std::as_bytes(std::span(file)));
      return DecodedPicture{image.width, image.height, std::move(image.rgb)};
    };
    openai::ServiceOptions service;
    service.log = openai::LogFormat::kNone;
    service_ = std::make_unique<openai::Service>(service);
    http::ServerOptions where;
    where.port = 0;
    server_ = std::make_unique<http::Server>(where, *service_);
    backend_ = std::make_unique<openai::EngineBackend>(Engine::load(kModel, engine));
    service_->set_backend(*backend_);
    server_->start();
  }
  ~HostileServer() {
    server_->stop();
    service_->close();
    backend_.reset();
  }

  http::Reply ask(const std::string& picture, const std::string& salt) const {
    const std::string body = fmt::format(
        R"({{"messages":[{{"role":"user","content":[{{"type":"image_url","image_url":{{"url":)"
        R"("data:image/png;base64,{}"}}}},{{"type":"text","text":"How many shapes are there?"}}]}}],"cache_salt":"{}"}})",
        base64(picture), salt);
    http::TestClient client(server_->port());
    return client.ask(fmt::format("POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: "
                                  "application/json\r\nContent-Length: {}\r\n\r\n{}",
                                  body.size(), body),
                      60'000);
  }

  std::atomic<int> deaths = 0;

 private:
  static std::string base64(std::string_view bytes) {
    constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    std::string out;
    for (size_t i = 0; i < bytes.size(); i += 3) {
      uint32_t group = 0;
      for (size_t j = 0; j < 3; ++j)
        group = group << 8 | (i + j < bytes.size() ? static_cast<uint8_t>(bytes[i + j]) : 0);
      for (size_t j = 0; j < 4; ++j) out += i + j > bytes.size() ? '=' : kDigits[group >> (18 - 6 * j) & 63];
    }
    return out;
  }

  std::unique_ptr<decoder::DecoderPool> pool_;
  std::unique_ptr<openai::Service> service_;
  std::unique_ptr<http::Server> server_;
  std::unique_ptr<openai::EngineBackend> backend_;
};

std::string choices_of(const http::Reply& reply) {
  EXPECT_EQ(reply.status, 200) << reply.body;
  const size_t start = reply.body.find("\"choices\""), end = reply.body.find("\"usage\"");
  return start == std::string::npos || end == std::string::npos ? "" : reply.body.substr(start, end - start);
}

void expect_refused(const http::Reply& reply, const std::string& order) {
  EXPECT_EQ(reply.status, 400) << order << reply.body;
  const json::value error = parse_json(reply.body, "error").at("error");
  EXPECT_EQ(error.at("code"), "image_invalid") << order;
  EXPECT_EQ(error.at("param"), "messages[0].content[0].image_url") << order;
}

TEST(Decoding, a_picture_that_takes_its_decoder_over_is_a_bad_request_and_nothing_else) {
  const std::string canary = read_file(kModel / "samples/06.png", 1 << 24);
  const HostileServer server(500);
  const std::string expected = choices_of(server.ask(canary, "first"));
  EXPECT_NE(expected.find("There are three shapes."), std::string::npos);
  for (const std::string order :
       {"crash", "abort", "exit", "deep", "spin", "sleep", "open", "write", "socket", "connect", "fork", "exec", "kill",
        "code", "huge", "negative", "status", "message", "short"}) {
    expect_refused(server.ask("order:" + order, ""), order);
    // Another salt: it is decoded again.
    EXPECT_EQ(choices_of(server.ask(canary, order)), expected) << order;
  }
  EXPECT_EQ(server.deaths, 11);
}

// IDEFICS_DEATHS=1000 for a long run.
TEST(Decoding, many_deaths_change_no_byte_of_others) {
  const char* wanted = std::getenv("IDEFICS_DEATHS");
  const int deaths = wanted ? std::atoi(wanted) : 20;
  const std::string canary = read_file(kModel / "samples/06.png", 1 << 24);
  const HostileServer server(10'000);
  const std::string expected = choices_of(server.ask(canary, "first"));
  std::vector<double> quiet, beside;
  const auto ask_timed = [&](const std::string& salt, std::vector<double>& ms) {
    const auto start = std::chrono::steady_clock::now();
    EXPECT_EQ(choices_of(server.ask(canary, salt)), expected) << salt;
    ms.push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count());
  };
  for (int i = 0; i < deaths; ++i) ask_timed("quiet" + std::to_string(i), quiet);
  std::thread attacker([&] {
    for (int i = 0; i < deaths; ++i) expect_refused(server.ask("order:crash", ""), "crash");
  });
  for (int i = 0; i < deaths; ++i) ask_timed("beside" + std::to_string(i), beside);
  attacker.join();
  EXPECT_EQ(server.deaths, deaths);
  const auto p99 = [](std::vector<double>& ms) {
    std::ranges::sort(ms);
    return ms[ms.size() * 99 / 100];
  };
  fmt::print("deaths {}, p99 of others: quiet {:.1f} ms, beside them {:.1f} ms\n", deaths, p99(quiet), p99(beside));
}

}  // namespace
}  // namespace idefics::e2e
