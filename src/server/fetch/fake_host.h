// A server of pictures that does as a test wants. For tests.
#pragma once

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace idefics::fetch {

class FakeHost {
 public:
  // What a connection hears. send() is false when the other side has gone or the test ends.
  class Peer {
   public:
    Peer(int fd, const std::atomic<bool>& ending) : fd_(fd), ending_(ending) {}
    bool send(std::string_view bytes) {
      while (!bytes.empty()) {
        const ssize_t n = ending_ ? -1 : ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
        if (n <= 0) return false;
        bytes.remove_prefix(static_cast<size_t>(n));
      }
      return true;
    }
    // False when the other side has gone meanwhile.
    bool wait(int ms) {
      for (int passed = 0; passed < ms; passed += 10) {
        pollfd p = {.fd = fd_, .events = POLLIN, .revents = 0};
        if (ending_ || ::poll(&p, 1, 10) > 0) return false;
      }
      return true;
    }

   private:
    int fd_;
    const std::atomic<bool>& ending_;
  };
  using Handler = std::function<void(Peer& peer, const std::string& head)>;

  explicit FakeHost(Handler handler, const char* address = "127.0.0.1", int port = 0)
      : handler_(std::move(handler)), fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in where{};
    where.sin_family = AF_INET;
    where.sin_port = htons(static_cast<uint16_t>(port));
    ::inet_pton(AF_INET, address, &where.sin_addr);
    socklen_t size = sizeof where;
    EXPECT_EQ(::bind(fd_, reinterpret_cast<const sockaddr*>(&where), sizeof where), 0);
    EXPECT_EQ(::listen(fd_, 64), 0);
    EXPECT_EQ(::getsockname(fd_, reinterpret_cast<sockaddr*>(&where), &size), 0);
    port_ = ntohs(where.sin_port);
    thread_ = std::thread([this] { run(); });
  }
  ~FakeHost() {
    ending_ = true;
    thread_.join();
    for (std::thread& thread : peers_) thread.join();
    ::close(fd_);
  }

  int port() const { return port_; }
  int connections() const { return connections_; }
  std::string last_head() {
    const std::lock_guard lock(mutex_);
    return head_;
  }

 private:
  void run() {
    while (!ending_) {
      pollfd p = {.fd = fd_, .events = POLLIN, .revents = 0};
      if (::poll(&p, 1, 10) <= 0) continue;
      const int fd = ::accept4(fd_, nullptr, nullptr, SOCK_CLOEXEC);
      if (fd < 0) continue;
      ++connections_;
      peers_.emplace_back([this, fd] { serve(fd); });
    }
  }
  void serve(int fd) {
    std::string head;
    char buffer[4096];
    while (!ending_ && head.find("\r\n\r\n") == std::string::npos) {
      pollfd p = {.fd = fd, .events = POLLIN, .revents = 0};
      if (::poll(&p, 1, 10) <= 0) continue;
      const ssize_t n = ::recv(fd, buffer, sizeof buffer, 0);
      if (n <= 0) break;
      head.append(buffer, static_cast<size_t>(n));
    }
    if (!head.empty()) {
      {
        const std::lock_guard lock(mutex_);
        head_ = head;
      }
      Peer peer(fd, ending_);
      handler_(peer, head);
    }
    ::close(fd);
  }

  const Handler handler_;
  const int fd_;
  int port_ = 0;
  std::atomic<bool> ending_ = false;
  std::atomic<int> connections_ = 0;
  std::mutex mutex_;
  std::string head_;
  std::vector<std::thread> peers_;
  std::thread thread_;
};

inline std::string whole_answer(const std::string& body, const std::string& more = "") {
  return "HTTP/1.1 200 OK\r\n" + more + "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
}

}  // namespace idefics::fetch
