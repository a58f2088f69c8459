#include "server/http/connection.h"

#include <fmt/format.h>
#include <openssl/rand.h>

#include <array>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <chrono>
#include <cstring>
#include <vector>

#include "server/http/request_parser.h"

namespace idefics::http {

void Shared::enter() {
  const std::lock_guard lock(mutex_);
  ++active_;
}

void Shared::leave() {
  const std::lock_guard lock(mutex_);
  if (--active_ == 0) idle_.notify_all();
}

bool Shared::wait_idle(int timeout_ms) {
  std::unique_lock lock(mutex_);
  return idle_.wait_for(lock, std::chrono::milliseconds(timeout_ms), [&] { return active_ == 0; });
}

namespace {

using Clock = std::chrono::steady_clock;
using Code = boost::system::error_code;
using std::chrono::milliseconds;

constexpr size_t kIdleReadBytes = size_t{4} << 10, kBodyReadBytes = size_t{64} << 10;
constexpr size_t kWriteBytes = size_t{64} << 10;
// What a client may send ahead while its answer is being made.
constexpr size_t kMaxAheadBytes = size_t{16} << 10;
// A body must come at least this fast on average: a client that sends a byte now and then is not idle, but in the way.
constexpr size_t kMinBodyBytesPerSecond = 1024;
// Of a body that do not count for Limits::all_bodies_bytes.
constexpr size_t kFreeBodyBytes = size_t{64} << 10;
constexpr milliseconds kLingerTime{2000};
// For one that was too slow already.
constexpr milliseconds kShortLingerTime{500};
constexpr size_t kLingerBytes = size_t{64} << 20;

std::string new_id() {
  constexpr const char* kDigits = "0123456789abcdef";
  std::array<unsigned char, 16> bytes{};
  ::RAND_bytes(bytes.data(), bytes.size());
  std::string id;
  for (const unsigned char byte : bytes) {
    id += kDigits[byte >> 4];
    id += kDigits[byte & 15];
  }
  return id;
}

// The client's name for its request, when it can go into a header and a log line as it is.
std::string id_of(const Request& request) {
  const std::string_view given = request.header("x-request-id");
  const bool plain = !given.empty() && given.size() <= 128 &&
                     given.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") ==
                         std::string_view::npos;
  return plain ? std::string(given) : new_id();
}

std::string address_of_peer(const Socket::lowest_layer_type& socket) {
  Code ignored;
  const auto peer = socket.remote_endpoint(ignored);
  const int family = peer.protocol().family();
  asio::ip::tcp::endpoint endpoint;
  if ((family != AF_INET && family != AF_INET6) || peer.size() > endpoint.capacity()) return "unix";
  std::memcpy(endpoint.data(), peer.data(), peer.size());
  return endpoint.address().to_string();
}

// Gives the memory back, which assigning an empty value does not.
template <typename Container>
void release(Container& container) {
  Container().swap(container);
}

// What a body takes of the memory that all bodies share. Its first bytes take none: connections are limited as well,
// and large bodies, however slowly they come, must not keep questions without pictures out.
class BodyShare {
 public:
  explicit BodyShare(Shared& shared) : shared_(shared) {}
  BodyShare(const BodyShare&) = delete;
  BodyShare& operator=(const BodyShare&) = delete;
  ~BodyShare() { give_back(); }

  // So much of the body has come. False when that is too much for now.
  bool hold(size_t bytes) {
    const size_t wanted = bytes - std::min(bytes, kFreeBodyBytes);
    if (wanted <= held_) return true;
    const size_t more = wanted - held_;
    held_ = wanted;
    return shared_.body_bytes.fetch_add(more) + more <= shared_.limits.all_bodies_bytes;
  }
  void give_back() {
    shared_.body_bytes -= held_;
    held_ = 0;
  }

 private:
  Shared& shared_;
  size_t held_ = 0;
};

// What an exchange wants of its connection.
class Wire {
 public:
  virtual ~Wire() = default;
  virtual void wake() = 0;
  virtual void cut() = 0;  // closes at once
  virtual void post(std::function<void()> action) = 0;
  virtual size_t unsent() const = 0;
  std::string out;  // to be written
};

class WireExchange : public Exchange, public std::enable_shared_from_this<WireExchange> {
 public:
  WireExchange(std::shared_ptr<Wire> wire, Request request, const Shared& shared)
      : wire_(std::move(wire)), request_(std::move(request)), shared_(shared) {}

  Request& request() override { return request_; }

  void respond(Response response) override {
    if (gone_ || started_) return;
    started_ = ended_ = true;
    status_ = response.status;
    close_ = response.close || !request_.keep_alive || shared_.closing;
    add_headers(response);
    const bool empty = response.status == 204 || response.status == 304;
    wire_->out += head_bytes(response, empty ? "" : fmt::format("content-length: {}", response.body.size()), close_);
    if (!empty && request_.method != "HEAD") wire_->out += response.body;
    wire_->wake();
  }

  void begin_stream(Response head, std::string heartbeat, int heartbeat_ms) override {
    if (gone_ || started_) return;
    started_ = true;
    status_ = head.status;
    chunked_ = request_.version == 11;
    close_ = head.close || !request_.keep_alive || !chunked_ || shared_.closing;
    add_headers(head);
    wire_->out += head_bytes(head, chunked_ ? "transfer-encoding: chunked" : "", close_);
    heartbeat_ = std::move(heartbeat);
    heartbeat_time_ = milliseconds(heartbeat_ms);
    wire_->wake();
  }

  bool send(std::string_view bytes) override {
    if (gone_ || ended_ || !started_) return false;
    if (bytes.empty()) return true;
    if (wire_->unsent() + bytes.size() > shared_.limits.unsent_bytes) {
      wire_->cut();
      leave();
      return false;
    }
    append(bytes);
    wire_->wake();
    return true;
  }

  void end_stream(bool close) override {
    if (gone_ || ended_ || !started_) return;
    if (chunked_) wire_->out += "0\r\n\r\n";
    ended_ = true;
    close_ = close_ || close || shared_.closing;
    wire_->wake();
  }

  void on_silence(int ms, std::function<void()> action) override {
    if (started_ || gone_) return;
    silence_end_ = Clock::now() + milliseconds(ms);
    on_silence_ = std::move(action);
    wire_->wake();
  }

  void on_gone(std::function<void()> action) override {
    if (gone_) {
      action();
    } else {
      on_gone_ = std::move(action);
    }
  }

  void post(std::function<void()> action) override { wire_->post(std::move(action)); }

  // For the connection.

  // The client is gone.
  void leave() {
    if (gone_ || ended_) return;
    gone_ = true;
    if (on_gone_) std::exchange(on_gone_, nullptr)();
    wire_->wake();
  }
  void finish() { on_gone_ = on_silence_ = nullptr; }
  // It is time that something is said.
  void speak() {
    if (started_) {
      append(heartbeat_);
    } else if (on_silence_) {
      std::exchange(on_silence_, nullptr)();
    }
  }
  bool ended() const { return ended_; }
  bool gone() const { return gone_; }
  bool closes() const { return close_; }
  int status() const { return status_; }
  // When something must be said at the latest, if nothing is until then.
  std::optional<Clock::time_point> silence_end() const {
    if (!started_ && on_silence_) return silence_end_;
    if (started_ && !heartbeat_.empty()) return Clock::now() + heartbeat_time_;
    return std::nullopt;
  }

 private:
  void add_headers(Response& response) const {
    response.headers.emplace_back("x-request-id", request_.id);
    response.headers.insert(response.headers.end(), request_.reply_headers.begin(), request_.reply_headers.end());
  }

  void append(std::string_view bytes) {
    if (chunked_) {
      wire_->out += fmt::format("{:x}\r\n", bytes.size());
      wire_->out += bytes;
      wire_->out += "\r\n";
    } else {
      wire_->out += bytes;
    }
  }

  const std::shared_ptr<Wire> wire_;
  Request request_;
  const Shared& shared_;
  std::function<void()> on_gone_, on_silence_;
  Clock::time_point silence_end_;
  std::string heartbeat_;
  milliseconds heartbeat_time_{0};
  int status_ = 0;
  bool started_ = false, ended_ = false, gone_ = false, chunked_ = false, close_ = false;
};

// The end of an answer, also when the server stops in the middle of it: what is registered with the exchange refers
// back to it, and would keep both for ever.
class AnswerScope {
 public:
  AnswerScope(Shared& shared, WireExchange& exchange) : shared_(shared), exchange_(exchange) { shared_.enter(); }
  AnswerScope(const AnswerScope&) = delete;
  AnswerScope& operator=(const AnswerScope&) = delete;
  ~AnswerScope() {
    exchange_.finish();
    shared_.leave();
  }

 private:
  Shared& shared_;
  WireExchange& exchange_;
};

// That a connection can be found on its loop: until it ends, wherever the last one that holds it lets it go.
class Registration {
 public:
  Registration(Loop& loop, const Watched& connection) : loop_(loop), connection_(&connection) {
    loop_.connections.insert(connection_);
  }
  Registration(const Registration&) = delete;
  Registration& operator=(const Registration&) = delete;
  ~Registration() { loop_.connections.erase(connection_); }

 private:
  Loop& loop_;
  const Watched* const connection_;
};

// Reads and writes are callbacks that note what they did and wake the one coroutine, which waits for nothing but its
// timer: so every wait has its deadline, and a client that goes away is seen whatever the coroutine is doing.
template <typename Stream>
class Connection final : public Wire, public Watched, public std::enable_shared_from_this<Connection<Stream>> {
 public:
  template <typename... More>
  Connection(Socket socket, Shared& shared, More&... more)
      : stream_(std::move(socket), more...),
        shared_(shared),
        timer_(stream_.get_executor()),
        peer_(address_of_peer(stream_.lowest_layer())) {
    ++shared_.num_connections;
  }
  ~Connection() override { --shared_.num_connections; }

  void start(Loop& loop, bool refused) {
    Code ignored;
    stream_.lowest_layer().set_option(asio::ip::tcp::no_delay(true), ignored);
    asio::co_spawn(
        stream_.get_executor(),
        [self = this->shared_from_this(), &loop, refused]() -> asio::awaitable<void> {
          const Registration registration(loop, *self);
          co_await self->run(refused);
        },
        asio::detached);
  }

  bool owes() const override {
    if (cut_) return false;
    Code ignored;
    return !at_rest_ || stream_.lowest_layer().available(ignored) > 0;
  }

  void wake() override { timer_.cancel(); }
  void cut() override {
    Code ignored;
    stream_.lowest_layer().close(ignored);
    cut_ = true;
    wake();
  }
  void post(std::function<void()> action) override { asio::post(stream_.get_executor(), std::move(action)); }
  size_t unsent() const override { return out.size() + writing_.size() - written_; }

 private:
  static constexpr bool kTls = !std::is_same_v<Stream, Socket>;

  // ---- Waiting
  // -------------------------------------------------------------------------------------------------------

  // False when the deadline passed first.
  template <typename Condition>
  asio::awaitable<bool> until(Condition condition, Clock::time_point deadline) {
    while (!condition()) {
      if (Clock::now() >= deadline) co_return false;
      timer_.expires_at(deadline);
      Code ignored;
      co_await timer_.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
    }
    co_return true;
  }

  void start_read(size_t most) {
    if (reading_ || eof_ || cut_) return;
    reading_ = true;
    block_.resize(most);
    stream_.async_read_some(asio::buffer(block_), [self = this->shared_from_this()](const Code& error, size_t n) {
      self->reading_ = false;
      self->eof_ = static_cast<bool>(error);
      self->in_.append(self->block_.data(), n);
      self->wake();
    });
  }

  enum class Fill { kBytes, kEnd, kLate };
  asio::awaitable<Fill> fill(Clock::time_point deadline, size_t most) {
    const size_t before = in_.size();
    start_read(most);
    const auto changed = [this, before] { return in_.size() > before || eof_ || cut_; };
    const bool in_time = co_await until(changed, deadline);
    if (!in_time) co_return Fill::kLate;
    co_return in_.size() > before ? Fill::kBytes : Fill::kEnd;
  }

  // Writes all of `out`. False when the client takes nothing any more.
  asio::awaitable<bool> flush() {
    while (!out.empty()) {
      writing_ = std::exchange(out, {});
      for (written_ = 0; written_ < writing_.size();) {
        if (cut_) co_return false;
        write_done_ = write_failed_ = false;
        const size_t most = std::min(kWriteBytes, writing_.size() - written_);
        stream_.async_write_some(asio::buffer(writing_.data() + written_, most),
                                 [self = this->shared_from_this()](const Code& error, size_t n) {
                                   self->write_done_ = true;
                                   self->write_failed_ = static_cast<bool>(error);
                                   self->written_ += n;
                                   self->wake();
                                 });
        const auto done = [this] { return write_done_; };
        const bool in_time = co_await until(done, Clock::now() + milliseconds(limits().send_timeout_ms));
        if (!in_time) {
          cut();
          const bool ended = co_await until(done, Clock::now() + kLingerTime);
          if (!ended) co_return false;
        }
        if (write_failed_ || !in_time) co_return false;
      }
      release(writing_);
      written_ = 0;
    }
    co_return !cut_;
  }

  // ---- One request after the other
  // -----------------------------------------------------------------------------------

  asio::awaitable<void> run(bool refused) {
    bool open = true;
    if constexpr (kTls) open = co_await handshake();
    if (open && refused) {
      const Request nothing;
      co_await refuse(Fault::kTooManyConnections, nothing);
      open = false;
    }
    bool first = true;
    while (open) {
      open = co_await serve(first);
      first = false;
    }
    co_await close();
  }

  asio::awaitable<bool> handshake() {
    if constexpr (kTls) {
      bool done = false, failed = false;
      // The flags live in this frame, which waits for the handler.
      stream_.async_handshake(asio::ssl::stream_base::server, [&, self = this->shared_from_this()](const Code& error) {
        done = true;
        failed = static_cast<bool>(error);
        self->wake();
      });
      const auto is_done = [&done] { return done; };
      const bool in_time = co_await until(is_done, Clock::now() + milliseconds(limits().head_timeout_ms));
      if (!in_time) {
        cut();
        co_await until(is_done, Clock::time_point::max());
      }
      co_return in_time && !failed;
    }
    co_return true;
  }

  asio::awaitable<void> close() {
    at_rest_ = true;
    if constexpr (kTls) {
      if (!cut_ && !eof_) {
        bool done = false;
        stream_.async_shutdown([&done, self = this->shared_from_this()](const Code&) {
          done = true;
          self->wake();
        });
        const auto is_done = [&done] { return done; };
        const bool in_time = co_await until(is_done, Clock::now() + kLingerTime);
        cut();
        if (!in_time) co_await until(is_done, Clock::time_point::max());
      }
    }
    cut();
  }

  // Answers one request. False: the connection is to be closed.
  asio::awaitable<bool> serve(bool first) {
    RequestParser parser(limits());
    const bool have_head = co_await read_head(parser, first);
    if (!have_head) co_return false;
    Request head = parser.request();
    head.id = id_of(head);
    head.peer = peer_;
    const Clock::time_point start = Clock::now();
    std::optional<Response> refusal = shared_.handler.admit(head);
    if (refusal) {
      const bool unread = parser.state() != RequestParser::State::kDone;
      refusal->close = refusal->close || unread;
      const auto exchange = std::make_shared<WireExchange>(this->shared_from_this(), std::move(head), shared_);
      exchange->respond(std::move(*refusal));
      const bool written = co_await flush();
      note(*exchange, start);
      if (written && exchange->closes()) co_await linger();
      co_return written && !exchange->closes();
    }
    BodyShare share(shared_);
    const bool have_body = co_await read_body(parser, head, share);
    if (!have_body) co_return false;
    head.body = std::move(parser.take().body);
    co_return co_await answer(std::move(head), start, share);
  }

  asio::awaitable<bool> read_head(RequestParser& parser, bool first) {
    const Clock::time_point idle_end =
        Clock::now() + milliseconds(first ? limits().head_timeout_ms : limits().keep_alive_timeout_ms);
    Clock::time_point deadline = idle_end;
    bool begun = false;
    while (parser.state() == RequestParser::State::kHead) {
      in_.erase(0, parser.push(in_));
      if (parser.state() != RequestParser::State::kHead) break;
      if (!in_.empty() && !begun) {
        begun = true;
        if (!first) deadline = Clock::now() + milliseconds(limits().head_timeout_ms);
      }
      at_rest_ = !begun;
      const Fill got = co_await fill(deadline, kIdleReadBytes);
      at_rest_ = false;
      if (got == Fill::kLate && begun) co_await refuse(Fault::kTimeout, parser.request());
      if (got != Fill::kBytes) co_return false;
    }
    if (parser.state() == RequestParser::State::kFailed) {
      co_await refuse(parser.fault(), parser.request());
      co_return false;
    }
    co_return true;
  }

  asio::awaitable<bool> read_body(RequestParser& parser, const Request& head, BodyShare& share) {
    const Clock::time_point start = Clock::now();
    size_t received = in_.size();
    if (parser.state() == RequestParser::State::kBody && in_.empty() && head.version == 11 &&
        same_word(head.header("expect"), "100-continue")) {
      out += "HTTP/1.1 100 Continue\r\n\r\n";
      const bool written = co_await flush();
      if (!written) co_return false;
    }
    while (parser.state() == RequestParser::State::kBody) {
      in_.erase(0, parser.push(in_));
      if (parser.state() != RequestParser::State::kBody) break;
      const size_t before = in_.size();
      const milliseconds patience(limits().body_timeout_ms);
      const Clock::time_point deadline =
          std::min(Clock::now() + patience, start + patience + milliseconds(1000 * received / kMinBodyBytesPerSecond));
      const Fill got = co_await fill(deadline, kBodyReadBytes);
      if (got == Fill::kLate) co_await refuse(Fault::kTimeout, head);
      if (got != Fill::kBytes) co_return false;
      received += in_.size() - before;
      if (!share.hold(received)) {
        // Its memory goes to the others at once, not when the client has read why.
        share.give_back();
        parser.take();
        co_await refuse(Fault::kTooManyBodies, head);
        co_return false;
      }
    }
    // A kept connection must not keep the buffers of a large body. A read that has begun still writes into its own.
    if (!reading_) release(block_);
    in_.shrink_to_fit();
    if (parser.state() == RequestParser::State::kFailed) {
      co_await refuse(parser.fault(), head);
      co_return false;
    }
    co_return true;
  }

  asio::awaitable<bool> answer(Request request, Clock::time_point start, BodyShare& share) {
    const auto exchange = std::make_shared<WireExchange>(this->shared_from_this(), std::move(request), shared_);
    const bool sound = co_await give_answer(*exchange, start, share);
    const bool reusable = sound && exchange->ended() && !exchange->closes();
    if (sound && !reusable) co_await linger();
    co_return reusable;
  }

  // False when the connection is broken.
  asio::awaitable<bool> give_answer(WireExchange& exchange, Clock::time_point start, BodyShare& share) {
    const AnswerScope scope(shared_, exchange);
    shared_.handler.handle(exchange.shared_from_this());
    release(exchange.request().body);
    share.give_back();
    bool sound = true;
    while (sound) {
      if (in_.size() < kMaxAheadBytes) start_read(kIdleReadBytes);
      if (!out.empty()) {
        sound = co_await flush();
        continue;
      }
      if (exchange.ended() || exchange.gone()) break;
      const auto changed = [&] { return !out.empty() || exchange.ended() || exchange.gone() || eof_ || cut_; };
      const std::optional<Clock::time_point> silence_end = exchange.silence_end();
      const Clock::time_point deadline = silence_end.value_or(Clock::now() + std::chrono::hours(24));
      const bool in_time = co_await until(changed, deadline);
      if (!in_time) exchange.speak();
      sound = !eof_ && !cut_;
      if (eof_ && exchange.ended()) sound = true;  // its last words may still be read
    }
    exchange.leave();
    note(exchange, start);
    co_return sound;
  }

  void note(WireExchange& exchange, Clock::time_point start) {
    const std::chrono::duration<double, std::milli> time = Clock::now() - start;
    shared_.handler.answered(exchange.request(), exchange.gone() ? 0 : exchange.status(), time.count());
  }

  asio::awaitable<void> refuse(Fault fault, const Request& read_so_far) {
    Request request = read_so_far;
    if (request.id.empty()) request.id = id_of(request);
    request.peer = peer_;
    Response response = shared_.handler.refuse(fault);
    response.close = true;
    const auto exchange = std::make_shared<WireExchange>(this->shared_from_this(), std::move(request), shared_);
    exchange->respond(std::move(response));
    const bool written = co_await flush();
    note(*exchange, Clock::now());
    if (written) co_await linger(fault == Fault::kTimeout ? kShortLingerTime : kLingerTime);
  }

  // Closing while bytes of the client are on their way would reset the connection, and take the response away from it.
  asio::awaitable<void> linger(milliseconds time = kLingerTime) {
    Code ignored;
    if constexpr (!kTls) stream_.shutdown(asio::socket_base::shutdown_send, ignored);
    const Clock::time_point deadline = Clock::now() + time;
    at_rest_ = true;
    for (size_t total = 0; total < kLingerBytes && !eof_ && !cut_; total += in_.size()) {
      in_.clear();
      const Fill got = co_await fill(deadline, kBodyReadBytes);
      if (got != Fill::kBytes) break;
    }
    in_.clear();
  }

  const Limits& limits() const { return shared_.limits; }

  Stream stream_;
  Shared& shared_;
  asio::steady_timer timer_;
  const std::string peer_;
  std::string in_;           // read, not used
  std::vector<char> block_;  // being read into
  std::string writing_;      // being written, up to written_
  size_t written_ = 0;
  bool reading_ = false, eof_ = false, cut_ = false, write_done_ = false, write_failed_ = false;
  bool at_rest_ = false;  // between requests, or behind the last one
};

}  // namespace

void start_connection(Socket socket, asio::ssl::context* tls, Loop& loop, Shared& shared) {
  const bool refused = shared.num_connections >= shared.limits.connections;
  if (tls == nullptr) {
    std::make_shared<Connection<Socket>>(std::move(socket), shared)->start(loop, refused);
  } else {
    std::make_shared<Connection<asio::ssl::stream<Socket>>>(std::move(socket), shared, *tls)->start(loop, refused);
  }
}

}  // namespace idefics::http
