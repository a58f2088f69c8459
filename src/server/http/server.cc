#include "server/http/server.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio.hpp>
#include <boost/asio/ssl.hpp>
#include <chrono>
#include <cstring>
#include <future>
#include <thread>
#include <vector>

#include "idefics/error.h"
#include "server/http/connection.h"

namespace idefics::http {

namespace {

using asio::ip::tcp;
using Local = asio::local::stream_protocol;

// A socket file of a server that is gone would be in the way for ever. One that answers is not ours to take.
void remove_stale(const std::filesystem::path& path) {
  struct stat info {};
  if (::lstat(path.c_str(), &info) != 0 || !S_ISSOCK(info.st_mode)) return;
  asio::io_context context;
  Local::socket probe(context);
  boost::system::error_code error;
  probe.connect(Local::endpoint(path.string()), error);
  if (error == asio::error::connection_refused) ::unlink(path.c_str());
}

}  // namespace

bool is_loopback(const std::string& host) {
  if (lower(host) == "localhost") return true;
  boost::system::error_code error;
  const asio::ip::address address = asio::ip::make_address(host, error);
  return !error && address.is_loopback();
}

struct Server::State {
  State(const ServerOptions& given, Handler& handler) : options(given), shared(handler, given.limits) {}

  const ServerOptions options;
  Shared shared;
  std::optional<asio::ssl::context> tls;
  std::vector<std::unique_ptr<Loop>> loops;  // one for each thread
  std::vector<asio::executor_work_guard<asio::io_context::executor_type>> guards;
  std::vector<std::thread> threads;
  std::optional<asio::basic_socket_acceptor<asio::generic::stream_protocol>> acceptor;
  asio::generic::stream_protocol::endpoint endpoint;
  std::string url;
  int port = 0;
  size_t next_loop = 0;

  void listen_tcp();
  void listen_unix();
  void open(const asio::generic::stream_protocol::endpoint& where, const std::string& name);
  void load_certificate();
  asio::awaitable<void> accept_all();
  bool close_acceptor();
  bool owes_nothing(std::chrono::steady_clock::time_point deadline);
};

void Server::State::open(const asio::generic::stream_protocol::endpoint& where, const std::string& name) {
  try {
    endpoint = where;
    acceptor.emplace(loops.front()->context);
    acceptor->open(endpoint.protocol());
    if (options.unix_path.empty()) acceptor->set_option(asio::socket_base::reuse_address(true));
    acceptor->bind(endpoint);
    acceptor->listen(4096);
  } catch (const boost::system::system_error& e) {
    throw Error(ErrorCode::kIo, fmt::format("cannot listen on {}: {}; choose another address or end the program that "
                                            "has this one",
                                            name, e.code().message()));
  }
}

void Server::State::listen_tcp() {
  boost::system::error_code error;
  tcp::resolver resolver(loops.front()->context);
  const auto found = resolver.resolve(options.host, std::to_string(options.port),
                                      tcp::resolver::passive | tcp::resolver::numeric_service, error);
  if (error || found.empty())
    throw Error(ErrorCode::kUsage,
                fmt::format("--host is \"{}\", wanted an address of this machine ({})", options.host, error.message()));
  const tcp::endpoint where = found.begin()->endpoint();
  open(where, fmt::format("{}:{}", options.host, options.port));
  const auto bound = acceptor->local_endpoint();
  tcp::endpoint tcp_bound;
  std::memcpy(tcp_bound.data(), bound.data(), bound.size());
  port = tcp_bound.port();
  const std::string name =
      options.host.find(':') == std::string::npos ? options.host : fmt::format("[{}]", options.host);
  url = fmt::format("{}://{}:{}", tls ? "https" : "http", name, port);
}

void Server::State::listen_unix() {
  const std::string path = options.unix_path.string();
  if (path.size() >= sizeof(sockaddr_un::sun_path))
    throw Error(ErrorCode::kUsage, fmt::format("--uds is {} bytes long, wanted a path of at most {}", path.size(),
                                               sizeof(sockaddr_un::sun_path) - 1));
  remove_stale(options.unix_path);
  // Who may connect is decided by the file's mode: this user alone, from its first moment on.
  const mode_t before = ::umask(0177);
  try {
    open(Local::endpoint(path), path);
  } catch (...) {
    ::umask(before);
    throw;
  }
  ::umask(before);
  url = "unix:" + path;
}

void Server::State::load_certificate() {
  if (options.certificate_file.empty() && options.key_file.empty()) return;
  if (options.certificate_file.empty() || options.key_file.empty())
    throw Error(ErrorCode::kUsage, "--ssl-certfile and --ssl-keyfile belong together; give both");
  tls.emplace(asio::ssl::context::tls_server);
  boost::system::error_code error;
  const auto check = [&](const std::filesystem::path& file) {
    if (error)
      throw Error(ErrorCode::kIo, fmt::format("{}: {}, wanted a PEM file for TLS", file.string(), error.message()));
  };
  tls->set_options(asio::ssl::context::default_workarounds | asio::ssl::context::no_tlsv1 |
                   asio::ssl::context::no_tlsv1_1 | asio::ssl::context::no_compression);
  tls->use_certificate_chain_file(options.certificate_file.string(), error);
  check(options.certificate_file);
  tls->use_private_key_file(options.key_file.string(), asio::ssl::context::pem, error);
  check(options.key_file);
  // Idle connections give their buffers back.
  ::SSL_CTX_set_mode(tls->native_handle(), SSL_MODE_RELEASE_BUFFERS);
}

asio::awaitable<void> Server::State::accept_all() {
  asio::steady_timer pause(loops.front()->context);
  for (;;) {
    Loop& loop = *loops[next_loop++ % loops.size()];
    boost::system::error_code error;
    Socket socket(loop.context);
    co_await acceptor->async_accept(socket, asio::redirect_error(asio::use_awaitable, error));
    if (error && !acceptor->is_open()) co_return;
    if (error) {
      // Mostly EMFILE: connections that end give descriptors back.
      pause.expires_after(std::chrono::milliseconds(100));
      co_await pause.async_wait(asio::redirect_error(asio::use_awaitable, error));
      continue;
    }
    asio::post(loop.context, [this, &loop, socket = std::make_shared<Socket>(std::move(socket))] {
      start_connection(std::move(*socket), tls ? &*tls : nullptr, loop, shared);
    });
  }
}

// False while connections wait that the system has taken: closing would reset them. On the thread of the first loop.
bool Server::State::close_acceptor() {
  if (!acceptor->is_open()) return true;
  pollfd waiting{.fd = acceptor->native_handle(), .events = POLLIN, .revents = 0};
  if (::poll(&waiting, 1, 0) != 0) return false;
  boost::system::error_code ignored;
  acceptor->close(ignored);
  return true;
}

// Asks each loop on its own thread.
bool Server::State::owes_nothing(std::chrono::steady_clock::time_point deadline) {
  std::vector<std::future<bool>> answers;
  for (const auto& loop : loops) {
    const auto answer = std::make_shared<std::promise<bool>>();
    answers.push_back(answer->get_future());
    asio::post(loop->context, [this, &loop = *loop, answer] {
      const bool closed = &loop != loops.front().get() || close_acceptor();
      answer->set_value(closed && std::ranges::none_of(loop.connections, &Watched::owes));
    });
  }
  return std::ranges::all_of(answers, [&](std::future<bool>& answer) {
    return answer.wait_until(deadline) == std::future_status::ready && answer.get();
  });
}

Server::Server(const ServerOptions& options, Handler& handler) : state_(std::make_unique<State>(options, handler)) {
  for (int i = 0; i < std::max(1, options.num_threads); ++i) state_->loops.push_back(std::make_unique<Loop>());
  state_->load_certificate();
  if (options.unix_path.empty()) {
    state_->listen_tcp();
  } else {
    state_->listen_unix();
  }
}

Server::~Server() {
  stop();
  // What is left of the connections ends with their loops.
  state_->guards.clear();
  state_->loops.clear();
}

void Server::start() {
  for (const auto& loop : state_->loops) {
    state_->guards.push_back(asio::make_work_guard(loop->context));
    state_->threads.emplace_back([&context = loop->context] { context.run(); });
  }
  asio::co_spawn(state_->loops.front()->context, state_->accept_all(), asio::detached);
}

void Server::close_connections() { state_->shared.closing = true; }
bool Server::wait_idle(int timeout_ms) { return state_->shared.wait_idle(timeout_ms); }

bool Server::finish(int timeout_ms) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(timeout_ms);
  // Twice in a row: what was accepted just before may have been on its way to its loop at the first time.
  for (int quiet = 0; quiet < 2;) {
    quiet = state_->owes_nothing(deadline) ? quiet + 1 : 0;
    if (std::chrono::steady_clock::now() >= deadline) return false;
    if (quiet == 0) std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return true;
}

void Server::stop() {
  if (!state_->acceptor) return;
  for (const auto& loop : state_->loops) loop->context.stop();
  for (std::thread& thread : state_->threads) thread.join();
  state_->threads.clear();
  state_->acceptor.reset();
  if (!state_->options.unix_path.empty()) ::unlink(state_->options.unix_path.c_str());
}

int Server::port() const { return state_->port; }
std::string Server::url() const { return state_->url; }
int Server::num_connections() const { return state_->shared.num_connections; }

}  // namespace idefics::http
