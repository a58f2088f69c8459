// A client that sends bytes as they are. For tests.
#pragma once

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <string>
#include <string_view>

#include "server/http/message.h"

namespace idefics::http {

struct Reply {
  int status = 0;  // 0: no response
  Headers headers;
  std::string body;  // chunks put together
  bool complete = false;

  std::string header(std::string_view name) const {
    for (const auto& [key, value] : headers) {
      if (key == name) return value;
    }
    return "";
  }
};

class TestClient {
 public:
  explicit TestClient(int port, int receive_buffer = 0) : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    if (receive_buffer > 0) ::setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(::connect(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  }
  TestClient(const TestClient&) = delete;
  TestClient& operator=(const TestClient&) = delete;
  ~TestClient() { close(); }

  void close() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }
  // Says that nothing more will come.
  void end() { ::shutdown(fd_, SHUT_WR); }
  // Closes so that the other side sees a reset.
  void reset() {
    const linger hard{1, 0};
    ::setsockopt(fd_, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    close();
  }

  // False when the server does not take it any more.
  bool send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t n = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (n <= 0) return false;
      bytes.remove_prefix(static_cast<size_t>(n));
    }
    return true;
  }

  // More bytes into `pending`; false at the end or after `timeout_ms`.
  bool receive(int timeout_ms) {
    pollfd poll{fd_, POLLIN, 0};
    if (::poll(&poll, 1, timeout_ms) <= 0) return false;
    char block[1 << 14];
    const ssize_t n = ::recv(fd_, block, sizeof block, 0);
    if (n > 0) pending.append(block, static_cast<size_t>(n));
    closed = closed || n <= 0;
    return n > 0;
  }

  // Whether the server closes the connection within this time. What comes before is kept in `pending`.
  bool closes_within(int timeout_ms) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(timeout_ms);
    while (!closed && std::chrono::steady_clock::now() < end) receive(20);
    return closed;
  }

  // The next response; interim ones (100) are skipped and counted.
  Reply read(int timeout_ms = 20'000, bool head_only = false) {
    Reply reply;
    const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(timeout_ms);
    for (;;) {
      const size_t head = pending.find("\r\n\r\n");
      if (head != std::string::npos && pending.starts_with("HTTP/1.1 100")) {
        pending.erase(0, head + 4);
        ++continues;
        continue;
      }
      if (head != std::string::npos && take(reply, head, head_only)) return reply;
      if (closed || std::chrono::steady_clock::now() > end) return reply;
      receive(20);
    }
  }
  Reply ask(std::string_view bytes, int timeout_ms = 20'000) {
    send(bytes);
    return read(timeout_ms);
  }

  std::string pending;
  bool closed = false;
  int continues = 0;

 private:
  bool take(Reply& reply, size_t head, bool head_only) {
    reply = {};
    reply.status = std::stoi(pending.substr(9, 3));
    for (size_t at = pending.find("\r\n") + 2; at < head;) {
      const size_t end = pending.find("\r\n", at);
      const std::string line = pending.substr(at, end - at);
      const size_t colon = line.find(": ");
      reply.headers.emplace_back(line.substr(0, colon), line.substr(colon + 2));
      at = end + 2;
    }
    const std::string body = pending.substr(head + 4);
    const std::string length = reply.header("content-length");
    if (head_only || reply.status == 204) {
      pending.erase(0, head + 4);
      return reply.complete = true;
    }
    if (!length.empty()) {
      const size_t n = std::stoul(length);
      if (body.size() < n) return false;
      reply.body = body.substr(0, n);
      pending.erase(0, head + 4 + n);
      return reply.complete = true;
    }
    if (reply.header("transfer-encoding") != "chunked") {
      reply.body = body;
      return reply.complete = closed;
    }
    for (size_t at = 0;;) {
      const size_t line = body.find("\r\n", at);
      if (line == std::string::npos) return false;
      const size_t n = std::stoul(body.substr(at, line - at), nullptr, 16);
      if (body.size() < line + 4 + n) return false;
      reply.body += body.substr(line + 2, n);
      at = line + 4 + n;
      if (n > 0) continue;
      pending.erase(0, head + 4 + at);
      return reply.complete = true;
    }
  }

  int fd_;
};

}  // namespace idefics::http
