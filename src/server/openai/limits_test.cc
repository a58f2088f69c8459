// Clients that are slow, greedy, gone or many; over loopback, with short timeouts. A canary beside each.
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <filesystem>

#include "server/openai/service_fixture.h"

namespace idefics::openai {
namespace {

using Clock = std::chrono::steady_clock;

http::ServerOptions quick() {
  http::ServerOptions where;
  where.limits.head_timeout_ms = 300;
  where.limits.body_timeout_ms = 300;
  where.limits.send_timeout_ms = 500;
  where.limits.keep_alive_timeout_ms = 400;
  return where;
}

void sleep_ms(int ms) { std::this_thread::sleep_for(std::chrono::milliseconds(ms)); }

template <typename Condition>
bool soon(Condition condition, int ms = 20'000) {
  for (const auto end = Clock::now() + std::chrono::milliseconds(ms); Clock::now() < end; sleep_ms(2)) {
    if (condition()) return true;
  }
  return condition();
}

// Counted when both threads of the server have what they need.
int open_descriptors(const Served& served) {
  for (int i = 0; i < 4; ++i) expect_canary(served);
  EXPECT_TRUE(soon([&] { return served.server->num_connections() == 0; }));
  const std::filesystem::directory_iterator all("/proc/self/fd");
  return static_cast<int>(std::distance(begin(all), end(all)));
}

TEST(Limits, a_slow_head_is_refused_and_a_silent_connection_closed) {
  const Served served({}, quick());
  http::TestClient slow(served.port()), silent(served.port()), drip(served.port());
  slow.send("GET / HTTP/1.1\r\nHost: localh");
  for (int i = 0; i < 3; ++i) {
    drip.send("G");  // a byte now and then does not buy time
    sleep_ms(80);
  }
  expect_canary(served);
  expect_error(slow.read(2000), 408, "invalid_request_error", "request_timeout", "");
  EXPECT_TRUE(slow.closes_within(3000));
  EXPECT_EQ(drip.read(2000).status, 408);
  EXPECT_TRUE(silent.closes_within(2000));
  EXPECT_TRUE(silent.pending.empty());
  EXPECT_TRUE(soon([&] { return served.server->num_connections() == 0; }));
}

TEST(Limits, a_slow_body_is_refused) {
  const Served served({}, quick());
  http::TestClient client(served.port());
  const std::string bytes = post("/v1/chat/completions", kChat);
  client.send(bytes.substr(0, bytes.size() - 10));
  expect_canary(served);
  expect_error(client.read(2000), 408, "invalid_request_error", "request_timeout", "");
  EXPECT_TRUE(client.closes_within(3000));
  EXPECT_EQ(served.backend->submitted(), 1) << "the canary alone";
}

TEST(Limits, a_kept_connection_is_closed_when_nothing_comes) {
  const Served served({}, quick());
  http::TestClient client(served.port());
  EXPECT_EQ(client.ask(get("/version")).status, 200);
  sleep_ms(200);
  EXPECT_EQ(client.ask(get("/version")).status, 200) << "it was kept";
  EXPECT_TRUE(client.closes_within(2000));
  EXPECT_TRUE(client.pending.empty());
}

TEST(Limits, too_large_things_are_refused_at_once_and_the_response_arrives) {
  http::ServerOptions where;
  where.limits.body_bytes = 100'000;
  const Served served({}, where);
  const std::string large(3'000'000, ' ');
  http::TestClient body(served.port());
  body.send(post("/v1/chat/completions", large));
  expect_error(body.read(), 413, "invalid_request_error", "body_too_large", "");
  http::TestClient line(served.port());
  expect_error(line.ask("GET /" + std::string(9000, 'a') + " HTTP/1.1\r\nHost: localhost\r\n\r\n"), 431,
               "invalid_request_error", "headers_too_large", "");
  http::TestClient endless(served.port());
  endless.send("GET / HTTP/1.1\r\nHost: localhost\r\nA: ");
  for (int i = 0; i < 100 && endless.send(std::string(10'000, 'a')); ++i) {
  }
  EXPECT_EQ(endless.read().status, 431);
  http::TestClient chunks(served.port());
  chunks.send(
      "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
      "Transfer-Encoding: chunked\r\n\r\n");
  for (int i = 0; i < 30 && chunks.send("2710\r\n" + std::string(10'000, ' ') + "\r\n"); ++i) {
  }
  EXPECT_EQ(chunks.read().status, 413);
  expect_canary(served);
}

TEST(Limits, bodies_together_are_limited_and_small_ones_still_come_in) {
  http::ServerOptions where;
  where.limits.all_bodies_bytes = 300'000;
  const Served served({}, where);
  const std::string bytes = post(
      "/v1/chat/completions", kChat.substr(0, kChat.size() - 1) + ",\"user\":\"" + std::string(200'000, 'x') + "\"}");
  const std::string most = bytes.substr(0, bytes.size() - 2), rest = bytes.substr(bytes.size() - 2);
  http::TestClient first(served.port()), second(served.port()), third(served.port());
  ASSERT_TRUE(first.send(most) && second.send(most));
  sleep_ms(200);
  third.send(bytes);
  const http::Reply refused = third.read();
  expect_error(refused, 503, "server_error", "overloaded", "");
  EXPECT_EQ(refused.header("retry-after"), "1");
  expect_canary(served);
  first.send(rest);
  EXPECT_EQ(first.read().status, 200);
  EXPECT_EQ(ask(served, bytes).status, 200) << "what was read takes no more room";
  second.close();
  EXPECT_TRUE(soon([&] { return served.server->num_connections() <= 1; }));
  for (int i = 0; i < 5; ++i) EXPECT_EQ(first.ask(bytes).status, 200) << i;
  expect_canary(served);
}

TEST(Limits, requests_that_come_while_an_answer_is_made_are_answered_in_turn) {
  const Served served;
  served.backend->set_script({.piece_delay_ms = 30});
  http::TestClient client(served.port());
  constexpr int kRequests = 6;
  for (int i = 0; i < kRequests; ++i) {
    client.send(post("/v1/chat/completions", kChat));
    sleep_ms(10);  // the next one is read while this one is answered, and a further read has begun when its turn comes
  }
  for (int i = 0; i < kRequests; ++i) EXPECT_EQ(client.read().status, 200) << i;
}

TEST(Limits, malformed_bytes_are_refused_and_the_connection_closed) {
  const Served served;
  for (const std::string bytes :
       {"GARBAGE\r\n\r\n", "GET / HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "\x16\x03\x01\x02\x01\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"}) {
    http::TestClient client(served.port());
    expect_error(client.ask(bytes + get("/version")), 400, "invalid_request_error", "invalid_value", bytes);
    EXPECT_TRUE(client.closes_within(3000)) << bytes;
    EXPECT_TRUE(client.pending.empty()) << "what stands behind it is no request: " << bytes;
  }
  expect_canary(served);
}

TEST(Limits, a_request_may_come_in_pieces_of_one_byte) {
  const Served served;
  http::TestClient client(served.port());
  for (const char c : post("/v1/chat/completions", kChat)) ASSERT_TRUE(client.send(std::string_view(&c, 1)));
  EXPECT_EQ(client.read().status, 200);
}

TEST(Limits, a_body_is_asked_for_only_when_its_head_is_welcome) {
  const Served served;
  const std::string bytes = post("/v1/chat/completions", kChat, "Expect: 100-continue\r\n");
  const size_t head = bytes.find("\r\n\r\n") + 4;
  http::TestClient client(served.port());
  client.send(bytes.substr(0, head));
  ASSERT_TRUE(soon([&] { return client.receive(10) || !client.pending.empty(); }));
  EXPECT_TRUE(client.pending.starts_with("HTTP/1.1 100 Continue\r\n\r\n"));
  EXPECT_EQ(client.ask(bytes.substr(head)).status, 200);
  http::TestClient unwelcome(served.port());
  unwelcome.send(post("/nowhere", kChat, "Expect: 100-continue\r\n").substr(0, head));
  const http::Reply reply = unwelcome.read();
  EXPECT_EQ(reply.status, 404);
  EXPECT_EQ(reply.header("connection"), "close");
  EXPECT_EQ(unwelcome.continues, 0);
}

TEST(Limits, a_client_that_goes_away_cancels_its_request) {
  const Served served;
  const int before = open_descriptors(served);
  served.backend->set_script({.hang = true});
  int wanted = 0;
  const int earlier = served.backend->submitted();
  for (const std::string& body : {kChat, kStream}) {
    for (const bool hard : {false, true}) {
      http::TestClient client(served.port());
      client.send(post("/v1/chat/completions", body));
      ++wanted;
      ASSERT_TRUE(soon([&] { return served.backend->submitted() == earlier + wanted; }));
      sleep_ms(10);
      const auto start = Clock::now();
      if (hard) client.reset();
      client.close();
      ASSERT_TRUE(soon([&] { return served.backend->cancelled() == wanted; })) << body << hard;
      EXPECT_LT(Clock::now() - start, std::chrono::milliseconds(250));
    }
  }
  served.backend->set_script({});
  EXPECT_TRUE(soon([&] { return served.backend->open() == 0 && served.server->num_connections() == 0; }));
  EXPECT_EQ(open_descriptors(served), before);
}

TEST(Limits, disconnects_at_random_times_leave_nothing_behind) {
  const Served served;
  const int before = open_descriptors(served);
  served.backend->set_script({.repeat = 10, .prompt_delay_ms = 1, .piece_delay_ms = 1});
  const std::string bytes = post("/v1/chat/completions", kStream);
  for (unsigned i = 0; i < 300; ++i) {
    http::TestClient client(served.port());
    const unsigned random = i * 2654435761U;
    client.send(bytes.substr(0, i % 3 == 0 ? random % bytes.size() : bytes.size()));
    std::this_thread::sleep_for(std::chrono::microseconds(random % 5000));
    if (i % 2 == 0) client.reset();
  }
  served.backend->set_script({});
  EXPECT_TRUE(soon([&] { return served.backend->open() == 0 && served.server->num_connections() == 0; }));
  EXPECT_EQ(open_descriptors(served), before);
  EXPECT_TRUE(served.server->wait_idle(1000));
}

TEST(Limits, a_reader_that_is_too_slow_for_its_stream_is_cut_off) {
  const Served served;
  served.backend->set_script({.pieces = {std::string(10'000, 'x')}, .repeat = 100'000});
  http::TestClient client(served.port(), 4096);
  client.send(post("/v1/chat/completions", kStream));
  ASSERT_TRUE(soon([&] { return served.backend->cancelled() == 1; }));
  served.backend->set_script({});
  expect_canary(served);
  EXPECT_TRUE(soon([&] { return served.server->num_connections() == 0; }));
}

TEST(Limits, a_reader_that_takes_nothing_of_an_answer_is_cut_off_in_time) {
  http::ServerOptions where = quick();
  where.limits.unsent_bytes = size_t{1} << 30;
  const Served served({}, where);
  served.backend->set_script({.pieces = {std::string(8'000'000, 'x')}});
  http::TestClient client(served.port(), 4096);
  client.send(post("/v1/chat/completions", kChat));
  ASSERT_TRUE(soon([&] { return served.server->num_connections() == 1; }));
  EXPECT_TRUE(soon([&] { return served.server->num_connections() == 0; }));
  served.backend->set_script({});
  expect_canary(served);
}

TEST(Limits, a_silent_stream_has_heartbeats) {
  ServiceOptions options;
  options.keep_alive_ms = 300;
  const Served served(options);
  served.backend->set_script({.piece_delay_ms = 150});
  const http::Reply reply = ask(served, post("/v1/chat/completions", kStream), 10'000);
  EXPECT_EQ(reply.body.find(": keep-alive"), std::string::npos) << "nobody was silent for so long";
  served.backend->set_script({.pieces = {"late"}, .piece_delay_ms = 450});
  const http::Reply late = ask(served, post("/v1/chat/completions", kStream), 10'000);
  EXPECT_NE(late.body.find("\n\n: keep-alive\n\ndata: "), std::string::npos) << late.body;
}

TEST(Limits, connections_beyond_the_most_are_told_so) {
  http::ServerOptions where;
  where.limits.connections = 10;
  const Served served({}, where);
  std::vector<std::unique_ptr<http::TestClient>> held;
  for (int i = 0; i < 10; ++i) held.push_back(std::make_unique<http::TestClient>(served.port()));
  ASSERT_TRUE(soon([&] { return served.server->num_connections() == 10; }));
  http::TestClient extra(served.port());
  const auto start = Clock::now();
  const http::Reply reply = extra.read();
  expect_error(reply, 503, "server_error", "overloaded", "");
  EXPECT_EQ(reply.header("retry-after"), "1");
  EXPECT_LT(Clock::now() - start, std::chrono::milliseconds(500));
  EXPECT_EQ(held.front()->ask(post("/v1/chat/completions", kChat)).status, 200);
  held.clear();
  ASSERT_TRUE(soon([&] { return served.server->num_connections() == 0; }));
  expect_canary(served);
}

TEST(Limits, many_idle_connections_and_streams_are_held_without_harm) {
  const Served served;
  const int before = open_descriptors(served);
  std::vector<std::unique_ptr<http::TestClient>> idle;
  for (int i = 0; i < 400; ++i) idle.push_back(std::make_unique<http::TestClient>(served.port()));
  served.backend->set_script({.repeat = 5, .piece_delay_ms = 20});
  std::vector<std::unique_ptr<http::TestClient>> streams;
  for (int i = 0; i < 50; ++i) {
    streams.push_back(std::make_unique<http::TestClient>(served.port()));
    streams.back()->send(post("/v1/chat/completions", kStream));
  }
  for (const auto& stream : streams) EXPECT_NE(stream->read().body.find("[DONE]"), std::string::npos);
  for (const auto& client : idle) EXPECT_EQ(client->ask(get("/version")).status, 200);
  idle.clear();
  streams.clear();
  served.backend->set_script({});
  EXPECT_TRUE(soon([&] { return served.server->num_connections() == 0; }));
  EXPECT_EQ(open_descriptors(served), before);
}

TEST(Limits, without_descriptors_accepting_pauses_and_recovers) {
  const Served served;
  rlimit before{};
  ::getrlimit(RLIMIT_NOFILE, &before);
  const std::unique_ptr<http::TestClient> first = std::make_unique<http::TestClient>(served.port());
  EXPECT_EQ(first->ask(get("/version")).status, 200);
  // The client has its descriptor when the server can have none.
  const auto second = std::make_unique<http::TestClient>(served.port());
  sleep_ms(50);
  const auto third = std::make_unique<http::TestClient>(served.port());
  const rlimit few{static_cast<rlim_t>(3), before.rlim_max};
  ::setrlimit(RLIMIT_NOFILE, &few);
  sleep_ms(300);
  EXPECT_EQ(first->ask(get("/version")).status, 200) << "those who are in are served";
  ::setrlimit(RLIMIT_NOFILE, &before);
  EXPECT_EQ(third->ask(get("/version")).status, 200);
  expect_canary(served);
}

}  // namespace
}  // namespace idefics::openai
