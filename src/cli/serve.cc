// idefics serve: the engine behind HTTP.
#include <fmt/format.h>
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <thread>

#include "base/files.h"
#include "base/thread_pool.h"
#include "cli/model_folder.h"
#include "cli/shared_flags.h"
#include "cli/shutdown_signals.h"
#include "cli/supervisor.h"
#include "cli/terminal.h"
#include "cli/verbs.h"
#include "decoder/decoder_pool.h"
#include "server/http/server.h"
#include "server/openai/engine_backend.h"
#include "server/openai/service.h"

namespace idefics::cli {

namespace {

constexpr int kDefaultQueue = 64;
constexpr int kDefaultDrainSeconds = 30;
// A step over a long prompt of the largest model takes some ten seconds on few CPUs.
constexpr int kDefaultStallSeconds = 120;
constexpr int kWatchMs = 1000;
// For the last words of requests that are cut off at the end of a drain.
constexpr int kFarewellMs = 1000, kFarewells = 20;

// For connections. On few CPUs a second one mostly wakes up in the way of those that compute: with two CPUs, 5,000
// requests a second and answers of 100 tokens, one thread left 13 % more answers (docs/testing.md).
int num_connection_threads() { return num_available_cpus() < 4 ? 1 : 2; }

struct Serve {
  ModelArgument model;
  EngineFlags engine;
  std::optional<std::string> host, uds, api_key_file, certificate, key, media_folder, log_format;
  std::vector<std::string> api_keys, names, hosts, origins, media_domains;
  std::optional<int64_t> kv_memory;
  std::optional<int> port, max_num_seqs, max_queue, max_requests_per_key, max_connections, max_body_bytes;
  std::optional<int> header_timeout, body_timeout, send_timeout, keep_alive_timeout, stall_timeout;
  std::optional<int> drain_delay, drain_timeout;
  bool no_webui = false;
};

[[noreturn]] void refuse(const std::string& message) { throw Error(ErrorCode::kUsage, message); }

// The parts of a text between separators, without the blanks around them.
std::vector<std::string> parts_of(std::string_view text, char separator) {
  std::vector<std::string> parts;
  for (size_t start = 0; start <= text.size();) {
    const size_t end = std::min(text.find(separator, start), text.size());
    parts.emplace_back(http::trimmed(text.substr(start, end - start)));
    start = end + 1;
  }
  return parts;
}

std::vector<std::string> read_keys(const Serve& options) {
  std::vector<std::string> keys = options.api_keys;
  if (options.api_key_file) {
    require_own_file(*options.api_key_file, "keys", false);
    const std::string text = read_file(*options.api_key_file, uint64_t{1} << 20);
    for (std::string& key : parts_of(text, '\n')) {
      if (key.ends_with('\r')) key.pop_back();
      if (!key.empty()) keys.push_back(std::move(key));
    }
    if (keys.empty()) refuse(fmt::format("{}: holds no key, wanted one on each line", *options.api_key_file));
  }
  for (const std::string& key : keys) {
    if (key.empty()) refuse("--api-key is empty, wanted a key");
  }
  return keys;
}

// The name of a model: that of its folder, unless --served-model-name says others.
std::vector<std::string> model_names(const Serve& options) {
  if (!options.names.empty()) return options.names;
  return {std::filesystem::canonical(options.model.folder).filename().string()};
}

std::filesystem::path media_folder(const Serve& options) {
  if (!options.media_folder) return {};
  std::error_code error;
  const std::filesystem::path folder = std::filesystem::canonical(*options.media_folder, error);
  if (error || !std::filesystem::is_directory(folder))
    refuse(fmt::format("--allowed-local-media-path is \"{}\", wanted a folder", *options.media_folder));
  return folder;
}

// "a.example,b.example", as often as somebody likes.
fetch::AllowedHosts media_hosts(const Serve& options) {
  fetch::AllowedHosts hosts;
  for (const std::string& list : options.media_domains) {
    for (const std::string& host : parts_of(list, ',')) hosts.add(host);
  }
  return hosts;
}

http::ServerOptions server_options(const Serve& options) {
  http::ServerOptions out;
  const auto set = [](int& limit, const std::optional<int>& seconds) {
    if (seconds) limit = 1000 * *seconds;
  };
  out.host = options.host.value_or(out.host);
  out.port = options.port.value_or(out.port);
  out.num_threads = num_connection_threads();
  out.unix_path = options.uds.value_or("");
  out.certificate_file = options.certificate.value_or("");
  out.key_file = options.key.value_or("");
  out.limits.connections = options.max_connections.value_or(out.limits.connections);
  if (options.max_body_bytes) out.limits.body_bytes = static_cast<size_t>(*options.max_body_bytes);
  out.limits.all_bodies_bytes = std::max(out.limits.all_bodies_bytes, 2 * out.limits.body_bytes);
  set(out.limits.head_timeout_ms, options.header_timeout);
  set(out.limits.body_timeout_ms, options.body_timeout);
  set(out.limits.send_timeout_ms, options.send_timeout);
  set(out.limits.keep_alive_timeout_ms, options.keep_alive_timeout);
  return out;
}

openai::ServiceOptions service_options(const Serve& options, const http::ServerOptions& server) {
  openai::ServiceOptions out;
  out.model_names = model_names(options);
  out.version = IDEFICS_VERSION;
  out.access.api_keys = read_keys(options);
  out.access.hosts = options.hosts;
  out.access.origins = options.origins;
  out.media_folder = media_folder(options);
  out.fetch.hosts = media_hosts(options);
  out.web_page = !options.no_webui;
  if (options.log_format == "json") out.log = openai::LogFormat::kJson;
  if (options.log_format == "none") out.log = openai::LogFormat::kNone;
  const bool open = out.access.api_keys.empty();
  out.max_requests_per_key = options.max_requests_per_key.value_or(0);
  if (open && options.max_requests_per_key)
    refuse(
        "--max-requests-per-key is for a server with keys; give --api-key-file, or IDEFICS_API_KEY in the environment");
  if (open && server.unix_path.empty() && !http::is_loopback(server.host))
    refuse(fmt::format("--host {} lets other machines in; give --api-key-file, or IDEFICS_API_KEY in the environment",
                       server.host));
  // Without a key any page in a browser on this machine could ask, if only its name led here.
  if (open && out.access.hosts.empty() && server.unix_path.empty())
    out.access.hosts = {"localhost", "127.0.0.1", "[::1]", server.host};
  return out;
}

http::Headers memory_fields(const Engine::Memory& memory) {
  const auto mib = [](size_t bytes) { return std::to_string(bytes >> 20); };
  return {{"weights_mib", mib(memory.weights)},         {"kv_cache_mib", mib(memory.kv_cache)},
          {"scratch_mib", mib(memory.scratch)},         {"vision_cache_mib", mib(memory.vision_cache)},
          {"pixel_cache_mib", mib(memory.pixel_cache)}, {"total_mib", mib(memory.total())}};
}

Engine load_engine(const Serve& options, decoder::DecoderPool& decoders, openai::Log& log) {
  EngineOptions wanted = options.engine.options();
  wanted.picture_decoder = [&decoders](std::string_view file) {
    Image image = decoders.decode(std::as_bytes(std::span(file)));
    return DecodedPicture{image.width, image.height, std::move(image.rgb)};
  };
  wanted.max_num_seqs = options.max_num_seqs.value_or(wanted.max_num_seqs);
  if (options.kv_memory) wanted.kv_cache_bytes = static_cast<size_t>(*options.kv_memory);
  wanted.max_waiting = options.max_queue.value_or(kDefaultQueue);
  Engine engine = Engine::load(options.model.folder, wanted);
  const std::vector<std::string>& bad = engine.nonfinite();
  if (!bad.empty())
    log.warning("tensors with NaN or Inf: answers may be nonsense",
                {{"tensors", std::to_string(bad.size())}, {"first", bad.front()}});
  log.info("memory", memory_fields(engine.memory()));
  return engine;
}

// An engine that makes no step for so long will not make another one. Whoever waits is told, and the program ends, so
// that whoever supervises it starts it again; the engine's own end would wait for its threads.
[[noreturn]] void give_up(openai::Service& service, http::Server& server) {
  service.log().error("the engine does not answer any more");
  service.begin_drain();
  service.abandon_all();
  server.wait_idle(kFarewellMs);
  std::_Exit(exit_code(ErrorCode::kInternal));
}

// Lets what runs come to its end. Before that, routers get the time to see that nothing new should come.
void drain(const Serve& options, openai::Service& service, http::Server& server) {
  tell_supervisor("STOPPING=1");
  const int delay = options.drain_delay.value_or(0);
  const int timeout = options.drain_timeout.value_or(kDefaultDrainSeconds);
  service.log().info("draining", {{"delay_s", std::to_string(delay)}, {"timeout_s", std::to_string(timeout)}});
  service.announce_end();
  server.close_connections();
  std::this_thread::sleep_for(std::chrono::seconds(delay));
  service.begin_drain();
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(timeout);
  server.wait_idle(1000 * timeout);
  const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - std::chrono::steady_clock::now());
  if (server.finish(static_cast<int>(std::max<int64_t>(left.count(), 0)))) return;
  // Again and again: a request that was on its way to the engine is not among those that run yet.
  for (int i = 0; i < kFarewells; ++i) {
    service.cancel_all();
    if (server.finish(kFarewellMs / kFarewells)) return;
  }
}

void serve_until_signal(const Serve& options, ShutdownSignals& signals, openai::Service& service,
                        http::Server& server) {
  const int stall_ms = 1000 * options.stall_timeout.value_or(kDefaultStallSeconds);
  while (!signals.wait(kWatchMs)) {
    if (service.stalled_ms() > stall_ms) give_up(service, server);
  }
  drain(options, service, server);
}

int run(const Serve& options) {
  options.model.require();
  const http::ServerOptions where = server_options(options);
  ShutdownSignals signals;
  ModelFolder::open(options.model.folder);  // what is no model is refused before anybody can connect
  ::signal(SIGXFSZ, SIG_IGN);               // below `ulimit -f` writing fails then, and does not kill
  openai::Service service(service_options(options, where));
  http::Server server(where, service);
  service.count_connections([&server] { return server.num_connections(); });
  server.start();
  service.log().info("listening", {{"url", server.url()}});
  decoder::DecoderPool decoders({}, [&service](const std::string& how) {
    service.log().warning("a decoding process failed", {{"why", how}});
  });
  if (!decoders.sandbox().seccomp || !decoders.sandbox().landlock)
    service.log().warning("this kernel locks up decoding processes only in part",
                          {{"seccomp", decoders.sandbox().seccomp ? "yes" : "no"},
                           {"landlock", decoders.sandbox().landlock ? "yes" : "no"}});
  // Requests meanwhile are told that the model is being loaded.
  openai::EngineBackend backend(load_engine(options, decoders, service.log()));
  service.set_backend(backend);
  signals.expect_waiter();
  service.log().info("ready", {{"model", model_names(options).front()}});
  tell_supervisor("READY=1");
  serve_until_signal(options, signals, service, server);
  server.stop();
  service.close();
  service.log().info("stopped");
  return 0;
}

void describe(Verb& verb, Serve& options) {
  options.model.describe(verb);
  verb.group("Address");
  verb.text("--host", "ADDRESS", "Where to listen; default 127.0.0.1. Another than this machine's own wants a key",
            options.host);
  verb.whole("--port", "Default 8000; 0: any that is free", 0, 65535, options.port);
  verb.text("--uds", "FILE", "Listen on this unix socket instead", options.uds);
  verb.text("--ssl-certfile", "FILE", "Speak TLS with this certificate chain (PEM)", options.certificate);
  verb.text("--ssl-keyfile", "FILE", "The private key of the certificate (PEM)", options.key);
  verb.group("Access");
  verb.texts("--api-key", "KEY",
             "Wanted of requests as a bearer token; others can see command lines, so better set "
             "IDEFICS_API_KEY",
             options.api_keys);
  verb.text("--api-key-file", "FILE", "A file with a key on each line", options.api_key_file);
  verb.texts("--allowed-hosts", "NAME",
             "Names that the Host header may have; default: those of this machine without a key, any with one",
             options.hosts);
  verb.texts("--allowed-origins", "ORIGIN", "Other pages that may ask (CORS), like https://example.org",
             options.origins);
  verb.text("--allowed-local-media-path", "DIR", "Let file: URLs name pictures below this folder",
            options.media_folder);
  verb.texts("--allowed-media-domains", "HOST,...",
             "Fetch pictures that requests name by https: URLs from these hosts, and from their public addresses only; "
             "default: none. host:8443 names a port, http://host allows it without TLS",
             options.media_domains);
  verb.flag("--no-webui", "No web page at /", options.no_webui);
  verb.group("Limits");
  verb.length("--max-connections", "Default 1024", 1, 1'000'000, options.max_connections);
  verb.length("--max-body-size", "Most bytes of a request, like 64m; default 32m", 1024, 1 << 30,
              options.max_body_bytes);
  verb.length("--max-queue", "Requests that may wait; more are refused; default 64", 1, 1'000'000, options.max_queue);
  verb.length("--max-requests-per-key",
              "Answers that one key may have under way or waiting; more get 429; default: no limit of its own", 1,
              1'000'000, options.max_requests_per_key);
  verb.length("--max-num-seqs", "Sequences computed at the same time; default 16", 1, 4096, options.max_num_seqs);
  verb.bytes("--kv-memory", "Memory for keys and values, like 512m or 2G; default: 16 sequences of 2048 tokens",
             options.kv_memory);
  verb.whole("--header-timeout", "Seconds for the head of a request; default 10", 1, 86400, options.header_timeout);
  verb.whole("--body-timeout", "Seconds without a byte of a body; default 30", 1, 86400, options.body_timeout);
  verb.whole("--send-timeout", "Seconds in which a client takes nothing; default 30", 1, 86400, options.send_timeout);
  verb.whole("--keep-alive-timeout", "Seconds between two requests; default 60", 1, 86400, options.keep_alive_timeout);
  verb.whole("--drain-delay",
             "Seconds at SIGTERM in which /health says 503 and requests are still taken, for routers; default 0", 0,
             86400, options.drain_delay);
  verb.whole("--drain-timeout", "Seconds for what runs at SIGTERM; default 30", 0, 86400, options.drain_timeout);
  verb.whole("--stall-timeout", "Seconds without a step of the engine after which the program ends with 1; default 120",
             1, 86400, options.stall_timeout);
  verb.group("Answers");
  verb.texts("--served-model-name", "NAME", "Name of the model in requests and answers; default: the folder's",
             options.names);
  options.engine.describe(verb);
  verb.group("Log");
  verb.text("--log-format", "text|json|none", "Lines on standard error; default text", options.log_format);
  verb.config_file();
}

}  // namespace

void add_serve(CommandLine& line) {
  Verb& verb = line.add_verb("serve", "Answer requests over HTTP, as OpenAI's interface has them.",
                             "idefics serve models/tiny-cards --port 8000",
                             "There is a page for people at /. It listens on this machine alone unless --host says "
                             "otherwise. SIGTERM or Ctrl-C lets what runs come to its end; a second one ends at once.");
  const auto options = std::make_shared<Serve>();
  describe(verb, *options);
  verb.action([options] { return run(*options); });
}

}  // namespace idefics::cli
