// A server whose decoding processes are taken over by pictures: each costs its request and nothing else.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>

#include "hostile_server.h"

namespace idefics::e2e {
namespace {

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
  const HostileServer server(2000);  // a good picture takes milliseconds; a busy machine adds its own
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

TEST(Decoding, a_picture_that_hangs_delays_neither_pictures_nor_texts) {
  const std::string canary = read_file(kModel / "samples/06.png", 1 << 24);
  constexpr int kHangMs = 8000;
  const HostileServer server(kHangMs);
  const std::string expected = choices_of(server.ask(canary, "first"));
  const auto start = std::chrono::steady_clock::now();
  const auto ms = [&] {
    return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - start).count();
  };
  // Two answers hang, and two that only make tokens.
  std::vector<std::unique_ptr<http::TestClient>> hanging;
  for (int i = 0; i < 2; ++i) {
    std::string tokens = HostileServer::question("order:sleep", "");
    tokens.replace(tokens.find("/v1/chat/completions"), 20, "/tokenize");
    for (const std::string& bytes : {HostileServer::question("order:sleep", ""), tokens}) {
      hanging.push_back(std::make_unique<http::TestClient>(server.port()));
      hanging.back()->send(bytes);
    }
  }
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(choices_of(server.ask(canary, std::to_string(i))), expected);
    EXPECT_EQ(choices_of(server.ask(canary, "first")), expected) << "a picture that is known";
    const std::string text = R"({"messages":[{"role":"user","content":"Hi"}],"max_tokens":4})";
    EXPECT_NE(choices_of(http::TestClient(server.port()).ask(HostileServer::request(text), 60'000)), "");
    std::string tokens = HostileServer::question(canary, "");
    tokens.replace(tokens.find("/v1/chat/completions"), 20, "/tokenize");
    EXPECT_EQ(http::TestClient(server.port()).ask(tokens, 60'000).status, 200);
  }
  EXPECT_LT(ms(), kHangMs) << "nobody waited for those that hang";
  EXPECT_EQ(server.deaths, 0);
  for (const auto& client : hanging) EXPECT_FALSE(client->receive(0));
  for (const auto& client : hanging) expect_refused(client->read(60'000), "sleep");
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
