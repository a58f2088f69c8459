// A server whose decoding processes obey the pictures that they are given (src/decoder/test_worker.cc).
#pragma once

#include <fmt/format.h>

#include <atomic>
#include <memory>

#include "base/files.h"
#include "decoder/decoder_pool.h"
#include "server/http/server.h"
#include "server/http/test_client.h"
#include "server/openai/engine_backend.h"
#include "server/openai/service.h"

namespace idefics::e2e {

inline const std::filesystem::path kModel = std::filesystem::path(IDEFICS_SOURCE_DIR) / "models/tiny-cards";

// As `idefics serve` wires it, with processes that obey.
class HostileServer {
 public:
  explicit HostileServer(int wall_ms, openai::ServiceOptions service = quiet()) {
    decoder::PoolOptions options;
    options.command = {IDEFICS_TEST_WORKER};
    options.wall_ms = wall_ms;
    pool_ = std::make_unique<decoder::DecoderPool>(options, [this](const std::string& how) {
      ++deaths;
      service_->log().warning("a decoding process failed", {{"why", how}});
    });
    EngineOptions engine;
    engine.picture_decoder = [this](std::string_view file) {
      Image image = pool_->decode(std::as_bytes(std::span(file)));
      return DecodedPicture{image.width, image.height, std::move(image.rgb)};
    };
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

  // A question about a picture. With a salt of its own it is decoded though it was seen before.
  static std::string question(const std::string& picture, const std::string& salt) {
    const std::string body = fmt::format(
        R"({{"messages":[{{"role":"user","content":[{{"type":"image_url","image_url":{{"url":)"
        R"("data:image/png;base64,{}"}}}},{{"type":"text","text":"How many shapes are there?"}}]}}],"cache_salt":"{}"}})",
        base64(picture), salt);
    return request(body);
  }
  static std::string request(const std::string& body) {
    return fmt::format(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: "
        "application/json\r\nContent-Length: {}\r\n\r\n{}",
        body.size(), body);
  }
  http::Reply ask(const std::string& picture, const std::string& salt) const {
    return http::TestClient(port()).ask(question(picture, salt), 60'000);
  }
  int port() const { return server_->port(); }

  std::atomic<int> deaths = 0;

  static openai::ServiceOptions quiet() {
    openai::ServiceOptions service;
    service.log = openai::LogFormat::kNone;
    return service;
  }
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

 private:
  std::unique_ptr<decoder::DecoderPool> pool_;
  std::unique_ptr<openai::Service> service_;
  std::unique_ptr<http::Server> server_;
  std::unique_ptr<openai::EngineBackend> backend_;
};

}  // namespace idefics::e2e
