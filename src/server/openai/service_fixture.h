// A server on a free port with a fake engine. For tests.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <memory>

#include "server/http/server.h"
#include "server/http/test_client.h"
#include "server/openai/fake_backend.h"
#include "server/openai/service.h"

namespace idefics::openai {

class Served {
 public:
  explicit Served(ServiceOptions options = {}, http::ServerOptions where = {}) {
    options.log = LogFormat::kNone;
    options.version = "1.2.3";
    where.port = 0;
    service = std::make_unique<Service>(options);
    server = std::make_unique<http::Server>(where, *service);
    backend = std::make_unique<FakeBackend>();
    service->set_backend(*backend);
    server->start();
  }
  // The order in which the program ends: threads of connections, own threads, engine, connections.
  ~Served() {
    server->stop();
    service->close();
    backend.reset();
  }
  int port() const { return server->port(); }

  std::unique_ptr<Service> service;
  std::unique_ptr<http::Server> server;
  std::unique_ptr<FakeBackend> backend;
};

inline std::string post(std::string_view path, std::string_view body, std::string_view more = "") {
  return fmt::format(
      "POST {} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{}Content-Length: {}\r\n\r\n{}", path,
      more, body.size(), body);
}
inline std::string get(std::string_view path, std::string_view more = "") {
  return fmt::format("GET {} HTTP/1.1\r\nHost: localhost\r\n{}\r\n", path, more);
}
inline http::Reply ask(const Served& served, const std::string& bytes, int timeout_ms = 20'000) {
  return http::TestClient(served.port()).ask(bytes, timeout_ms);
}

const std::string kChat = R"({"messages":[{"role":"user","content":"Hi"}]})";
const std::string kStream = R"({"messages":[{"role":"user","content":"Hi"}],"stream":true})";

// A fixed request beside and behind everything that is bad: its bytes never change.
inline void expect_canary(const Served& served) {
  const http::Reply reply = ask(served, post("/v1/chat/completions", kChat));
  ASSERT_EQ(reply.status, 200) << reply.body;
  EXPECT_EQ(json::parse(reply.body).at("choices").at(0).at("message").at("content").as_string(), "Hello world");
}

// The body is the one form of errors, of at most 4 KiB.
inline void expect_error(const http::Reply& reply, int status, std::string_view type, std::string_view code,
                         const std::string& where) {
  EXPECT_EQ(reply.status, status) << where << reply.body.substr(0, 500);
  EXPECT_TRUE(reply.complete) << where;
  EXPECT_EQ(reply.header("content-type"), "application/json") << where;
  EXPECT_FALSE(reply.header("x-request-id").empty()) << where;
  EXPECT_LE(reply.body.size(), 4096u) << where;
  boost::system::error_code bad;
  const json::value body = json::parse(reply.body, bad);
  ASSERT_FALSE(bad) << where << reply.body;
  const json::object& error = body.at("error").as_object();
  EXPECT_EQ(error.size(), 4u) << where;
  EXPECT_EQ(error.at("type").as_string(), json::string_view(type.data(), type.size())) << where << reply.body;
  EXPECT_EQ(error.at("code").as_string(), json::string_view(code.data(), code.size())) << where << reply.body;
  EXPECT_TRUE(error.at("message").is_string()) << where;
  EXPECT_TRUE(error.at("param").is_string() || error.at("param").is_null()) << where;
}

}  // namespace idefics::openai
