#include "server/fetch/fetcher.h"

#include <gtest/gtest.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "server/fetch/fake_host.h"
#include "server/openai/service_fixture.h"

namespace idefics::fetch {
namespace {

using Status = Fetched::Status;
using Clock = std::chrono::steady_clock;

bool is_address(const sockaddr& address, const char* text) {
  char name[INET6_ADDRSTRLEN] = {};
  const auto* v4 = reinterpret_cast<const sockaddr_in*>(&address);
  return address.sa_family == AF_INET && ::inet_ntop(AF_INET, &v4->sin_addr, name, sizeof name) != nullptr &&
         std::string_view(name) == text;
}

// Lets http://pics.example and http://other.example at the ports be fetched, and what they are at 127.0.0.1 be
// connected to. 127.0.0.2 plays an address of the own network.
FetchOptions options_for(std::vector<int> ports) {
  FetchOptions options;
  for (const int port : ports) {
    for (const std::string name : {"pics.example", "other.example"})
      options.hosts.add("http://" + name + ":" + std::to_string(port));
  }
  options.allowed_address = [](const sockaddr& address) { return is_address(address, "127.0.0.1"); };
  options.resolve = [](const Origin& origin) {
    return std::vector<std::string>{origin.host + ":" + std::to_string(origin.port) + ":127.0.0.1"};
  };
  return options;
}

Url url_of(const FakeHost& host, const std::string& target = "/x.png", const std::string& name = "pics.example") {
  return {{false, name, host.port()}, target};
}

std::vector<Fetched> fetch_all(Fetcher& fetcher, std::vector<Url> urls,
                               const std::function<void(Fetcher::Batch&)>& meanwhile = {}) {
  std::mutex mutex;
  std::condition_variable changed;
  std::optional<std::vector<Fetched>> results;
  const auto batch = fetcher.start(std::move(urls), [&](std::vector<Fetched> fetched) {
    const std::lock_guard lock(mutex);
    results = std::move(fetched);
    changed.notify_one();
  });
  EXPECT_NE(batch, nullptr);
  if (meanwhile) meanwhile(*batch);
  std::unique_lock lock(mutex);
  EXPECT_TRUE(changed.wait_for(lock, std::chrono::seconds(30), [&] { return results.has_value(); }));
  return results.value_or(std::vector<Fetched>(1));
}

Fetched fetch_one(FetchOptions options, const Url& url) {
  Fetcher fetcher(std::move(options));
  return fetch_all(fetcher, {url}).front();
}

FakeHost::Handler always(std::string answer) {
  return [answer = std::move(answer)](FakeHost::Peer& peer, const std::string&) { peer.send(answer); };
}

std::string redirect(const std::string& to, int status = 302) {
  return "HTTP/1.1 " + std::to_string(status) + " Moved\r\nLocation: " + to + "\r\nContent-Length: 0\r\n\r\n";
}

TEST(Fetcher, a_picture_comes_as_it_is_and_nothing_of_ours_goes) {
  const std::filesystem::path home = std::filesystem::temp_directory_path() / "idefics-fetch-home";
  std::filesystem::create_directories(home);
  std::ofstream(home / ".netrc") << "machine pics.example login me password planted-secret\n";
  ::setenv("HOME", home.c_str(), 1);
  for (const char* name : {"http_proxy", "https_proxy", "ALL_PROXY", "all_proxy"})
    ::setenv(name, "http://127.0.0.2:9", 1);
  const std::string body("\x89PNG\0\r\n bytes", 13);
  FakeHost host(always(whole_answer(body, "Set-Cookie: a=b\r\nContent-Encoding: gzip\r\n")));
  for (int i = 0; i < 2; ++i) {
    const Fetched fetched = fetch_one(options_for({host.port()}), url_of(host, "/a?b=c"));
    EXPECT_EQ(fetched.status, Status::kGood) << fetched.problem;
    EXPECT_EQ(fetched.bytes, body);
    EXPECT_EQ(host.last_head(), "GET /a?b=c HTTP/1.1\r\nHost: pics.example:" + std::to_string(host.port()) +
                                    "\r\nUser-Agent: idefics\r\nAccept: */*\r\n\r\n");
  }
  for (const char* name : {"http_proxy", "https_proxy", "ALL_PROXY", "all_proxy"}) ::unsetenv(name);
  std::filesystem::remove_all(home);
  FakeHost chunked(always("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"));
  EXPECT_EQ(fetch_one(options_for({chunked.port()}), url_of(chunked)).bytes, "abcde");
}

TEST(Fetcher, only_global_addresses_are_connected_to) {
  FakeHost host(always(whole_answer("secret")));
  for (const char* address :
       {"127.0.0.1", "127.0.0.1,[::1]", "[::1]", "10.0.0.1", "169.254.169.254", "[::ffff:127.0.0.1]",
        "[64:ff9b::7f00:1]", "0.0.0.0", "192.168.1.1", "[fe80::1]", "[fd00::1]"}) {
    FetchOptions options = options_for({host.port()});
    options.allowed_address = is_global;
    options.resolve = [&](const Origin& origin) {
      return std::vector<std::string>{origin.host + ":" + std::to_string(origin.port) + ":" + address};
    };
    const Fetched fetched = fetch_one(options, url_of(host));
    EXPECT_EQ(fetched.status, Status::kNotAllowed) << address << fetched.problem;
  }
  EXPECT_EQ(host.connections(), 0);
}

// ---- TLS ----

// Makes certificates that it signs itself.
class Authority {
 public:
  explicit Authority(const char* name = "Test Authority") : key_(::EVP_EC_gen("P-256")) {
    certificate_ = make(name, key_.get(), {.is_authority = true});
  }

  struct Wanted {
    std::string names = {};            // "DNS:pics.example"
    long from_s = -3600, to_s = 3600;  // from now on
    bool is_authority = false;
  };
  // A folder's cert.pem and key.pem.
  void write(const std::filesystem::path& folder, const Wanted& wanted) const {
    const Key key(::EVP_EC_gen("P-256"));
    write_pem(folder / "key.pem", [&](FILE* file) {
      return ::PEM_write_PrivateKey(file, key.get(), nullptr, nullptr, 0, nullptr, nullptr);
    });
    const Certificate certificate = make("a server", key.get(), wanted);
    write_pem(folder / "cert.pem", [&](FILE* file) { return ::PEM_write_X509(file, certificate.get()); });
  }
  // Its own certificate, for those who are to trust it.
  void write_own(const std::filesystem::path& path) const {
    write_pem(path, [&](FILE* file) { return ::PEM_write_X509(file, certificate_.get()); });
  }

 private:
  struct Free {
    void operator()(EVP_PKEY* key) const { ::EVP_PKEY_free(key); }
    void operator()(X509* certificate) const { ::X509_free(certificate); }
    void operator()(X509_EXTENSION* extension) const { ::X509_EXTENSION_free(extension); }
    void operator()(FILE* file) const { std::fclose(file); }
  };
  using Key = std::unique_ptr<EVP_PKEY, Free>;
  using Certificate = std::unique_ptr<X509, Free>;

  static void write_pem(const std::filesystem::path& path, const std::function<int(FILE*)>& write) {
    const std::unique_ptr<FILE, Free> file(std::fopen(path.c_str(), "w"));
    ASSERT_TRUE(file) << path;
    ASSERT_EQ(write(file.get()), 1) << path;
  }

  Certificate make(const char* name, EVP_PKEY* key, const Wanted& wanted) const {
    Certificate out(::X509_new());
    X509* x = out.get();
    ::X509_set_version(x, 2);
    ::ASN1_INTEGER_set(::X509_get_serialNumber(x), ++serial_);
    ::X509_gmtime_adj(::X509_getm_notBefore(x), wanted.from_s);
    ::X509_gmtime_adj(::X509_getm_notAfter(x), wanted.to_s);
    ::X509_NAME_add_entry_by_txt(::X509_get_subject_name(x), "CN", MBSTRING_ASC,
                                 reinterpret_cast<const unsigned char*>(name), -1, -1, 0);
    ::X509_set_issuer_name(x, ::X509_get_subject_name(certificate_ ? certificate_.get() : x));
    ::X509_set_pubkey(x, key);
    const auto add = [&](int kind, const std::string& text) {
      X509V3_CTX context;
      X509V3_set_ctx(&context, certificate_ ? certificate_.get() : x, x, nullptr, nullptr, 0);
      const std::unique_ptr<X509_EXTENSION, Free> extension(
          ::X509V3_EXT_conf_nid(nullptr, &context, kind, text.c_str()));
      EXPECT_TRUE(extension) << text;
      ::X509_add_ext(x, extension.get(), -1);
    };
    add(NID_basic_constraints, wanted.is_authority ? "critical,CA:TRUE" : "CA:FALSE");
    if (!wanted.names.empty()) add(NID_subject_alt_name, wanted.names);
    EXPECT_GT(::X509_sign(x, key_.get(), ::EVP_sha256()), 0);
    return out;
  }

  Key key_;
  mutable long serial_ = 0;
  Certificate certificate_;
};

// A host of pictures that speaks TLS.
class TlsHost : public http::Handler {
 public:
  explicit TlsHost(const std::filesystem::path& folder) {
    http::ServerOptions where;
    where.port = 0;
    where.certificate_file = folder / "cert.pem";
    where.key_file = folder / "key.pem";
    server_ = std::make_unique<http::Server>(where, *this);
    server_->start();
  }
  ~TlsHost() override { server_->stop(); }
  int port() const { return server_->port(); }
  int requests() const { return requests_; }
  std::string location = {};  // leads there instead

  std::optional<http::Response> admit(http::Request&) override { return std::nullopt; }
  void handle(std::shared_ptr<http::Exchange> exchange) override {
    ++requests_;
    if (location.empty()) return exchange->respond({.status = 200, .headers = {}, .body = "a picture"});
    exchange->respond({.status = 302, .headers = {{"location", location}}, .body = ""});
  }
  http::Response refuse(http::Fault) override { return {.status = 400}; }
  void answered(const http::Request&, int, double) override {}

 private:
  std::atomic<int> requests_ = 0;
  std::unique_ptr<http::Server> server_;
};

class Tls : public testing::Test {
 protected:
  Tls() : folder_(std::filesystem::temp_directory_path() / ("idefics-fetch-tls-" + std::to_string(::getpid()))) {
    std::filesystem::create_directories(folder_);
    authority_.write_own(folder_ / "ca.pem");
  }
  ~Tls() override { std::filesystem::remove_all(folder_); }

  // A host with such a certificate.
  std::unique_ptr<TlsHost> host(const Authority& authority, const Authority::Wanted& wanted) const {
    authority.write(folder_, wanted);
    return std::make_unique<TlsHost>(folder_);
  }
  std::unique_ptr<TlsHost> host(const Authority::Wanted& wanted) const { return host(authority_, wanted); }
  // As options_for, with TLS and trust in the authority.
  FetchOptions options(const std::vector<int>& ports) const {
    FetchOptions out = options_for({});
    for (const int port : ports) {
      for (const std::string name : {"pics.example", "other.example"}) out.hosts.add(name + ":" + std::to_string(port));
    }
    out.certificates = (folder_ / "ca.pem").string();
    return out;
  }
  static Url url(int port, const std::string& name = "pics.example") { return {{true, name, port}, "/x.png"}; }

  const std::filesystem::path folder_;
  const Authority authority_;
};

TEST_F(Tls, a_picture_comes_from_a_host_that_is_who_it_says) {
  for (const std::string names : {"DNS:pics.example", "DNS:a.example,DNS:pics.example", "DNS:PICS.example"}) {
    const auto good = host({.names = names});
    const Fetched fetched = fetch_one(options({good->port()}), url(good->port()));
    EXPECT_EQ(fetched.status, Status::kGood) << names << ": " << fetched.problem;
    EXPECT_EQ(fetched.bytes, "a picture");
  }
}

TEST_F(Tls, a_host_that_is_not_who_it_says_hears_no_request) {
  const Authority stranger("Another Authority"), impostor;
  const std::string name = "DNS:pics.example";
  const std::vector<std::tuple<std::string, const Authority*, Authority::Wanted>> cases = {
      {"another name", &authority_, {.names = "DNS:other.example"}},
      {"a name below", &authority_, {.names = "DNS:a.pics.example"}},
      {"a name above", &authority_, {.names = "DNS:example"}},
      {"a name that begins so", &authority_, {.names = "DNS:pics.example.evil.test"}},
      {"a star for all", &authority_, {.names = "DNS:*"}},
      {"a star for a domain", &authority_, {.names = "DNS:*.example"}},
      {"a star for what is below", &authority_, {.names = "DNS:*.pics.example"}},
      {"an address", &authority_, {.names = "IP:127.0.0.1"}},
      {"no name", &authority_, {}},
      {"expired", &authority_, {.names = name, .from_s = -7200, .to_s = -3600}},
      {"not valid yet", &authority_, {.names = name, .from_s = 3600, .to_s = 7200}},
      {"signed by somebody else", &stranger, {.names = name}},
  };
  for (const auto& [what, authority, wanted] : cases) {
    const auto bad = host(*authority, wanted);
    const Fetched fetched = fetch_one(options({bad->port()}), url(bad->port()));
    EXPECT_EQ(fetched.status, Status::kFailed) << what;
    EXPECT_EQ(fetched.problem, "the host has no certificate that is trusted") << what;
    EXPECT_EQ(bad->requests(), 0) << what;
  }
  // Signed by itself: the authority shows its own certificate.
  Authority::Wanted own{.names = name};
  own.is_authority = true;
  const auto self_signed = host(stranger, own);
  EXPECT_EQ(fetch_one(options({self_signed->port()}), url(self_signed->port())).problem,
            "the host has no certificate that is trusted");
  EXPECT_EQ(self_signed->requests(), 0);
  // Good, but nobody on this machine trusts the authority.
  const auto good = host({.names = name});
  FetchOptions system = options({good->port()});
  system.certificates = {};
  EXPECT_EQ(fetch_one(system, url(good->port())).problem, "the host has no certificate that is trusted");
  EXPECT_EQ(good->requests(), 0);
  // Its certificate names the authority, but what is wrong is found in the signature.
  const auto forged = host(impostor, {.names = name});
  EXPECT_EQ(fetch_one(options({forged->port()}), url(forged->port())).problem,
            "the host does not speak TLS, or has no certificate that is trusted");
  EXPECT_EQ(forged->requests(), 0);
  FakeHost plain(always(whole_answer("no TLS")));
  FetchOptions hasty = options({plain.port()});  // this host waits for the end of a head
  hasty.timeout_ms = 300;
  EXPECT_EQ(fetch_one(hasty, url(plain.port())).status, Status::kFailed);
}

TEST_F(Tls, a_good_certificate_opens_no_address_and_no_other_host) {
  const auto good = host({.names = "DNS:pics.example,DNS:other.example"});
  FetchOptions guarded = options({good->port()});
  guarded.allowed_address = is_global;
  EXPECT_EQ(fetch_one(guarded, url(good->port())).status, Status::kNotAllowed);
  EXPECT_EQ(fetch_one(options({}), url(good->port())).status, Status::kNotAllowed);
  EXPECT_EQ(good->requests(), 0);
  // The next hop is looked at like the first.
  FakeHost plain(always(whole_answer("without TLS")));
  for (const std::string& location :
       {"http://pics.example:" + std::to_string(plain.port()) + "/x.png", std::string("https://third.example/x.png"),
        "https://127.0.0.1:" + std::to_string(good->port()) + "/x.png"}) {
    good->location = location;
    EXPECT_EQ(fetch_one(options({good->port(), plain.port()}), url(good->port())).status, Status::kNotAllowed)
        << location;
  }
  EXPECT_EQ(plain.connections(), 0);
  const auto next = host({.names = "DNS:other.example"});
  for (const std::string name : {"other.example", "pics.example"}) {
    good->location = "https://" + name + ":" + std::to_string(next->port()) + "/x.png";
    const Fetched fetched = fetch_one(options({good->port(), next->port()}), url(good->port()));
    EXPECT_EQ(fetched.status, name == "other.example" ? Status::kGood : Status::kFailed) << name << fetched.problem;
  }
  EXPECT_EQ(next->requests(), 1);
}

TEST(Fetcher, one_forbidden_address_among_others_is_enough) {
  FakeHost good(always(whole_answer("good")));
  FakeHost inner(always(whole_answer("secret")), "127.0.0.2", good.port());
  FetchOptions options = options_for({good.port()});
  options.resolve = [&](const Origin& origin) {
    return std::vector<std::string>{origin.host + ":" + std::to_string(origin.port) + ":127.0.0.2,127.0.0.1"};
  };
  EXPECT_EQ(fetch_one(options, url_of(good)).status, Status::kNotAllowed);
  EXPECT_EQ(inner.connections(), 0);
}

TEST(Fetcher, redirects_are_followed_only_to_what_would_be_allowed) {
  FakeHost inner(always(whole_answer("secret")), "127.0.0.2");
  std::string to;
  FakeHost host([&](FakeHost::Peer& peer, const std::string& head) {
    const bool start = head.starts_with("GET /start ");
    peer.send(start ? redirect(to) : whole_answer("good"));
  });
  const std::string port = std::to_string(host.port()), inner_port = std::to_string(inner.port());
  const FetchOptions options = options_for({host.port()});
  for (const std::string& good : std::vector<std::string>{"/next", "next?x", "http://pics.example:" + port + "/y",
                                                          "//other.example:" + port + "/"}) {
    to = good;
    const Fetched fetched = fetch_one(options, url_of(host, "/start"));
    EXPECT_EQ(fetched.bytes, "good") << good << fetched.problem;
  }
  for (const std::string& bad : std::vector<std::string>{
           "http://127.0.0.2:" + inner_port + "/", "http://pics.example:" + inner_port + "/", "http://evil.example/",
           "http://user@pics.example:" + port + "/", "https://pics.example:" + port + "/",
           std::string("file:///etc/passwd"), "http://2130706434:" + inner_port + "/",
           "http://0x7f.2:" + inner_port + "/", "http://[::ffff:127.0.0.2]:" + inner_port + "/",
           "http://localhost:" + inner_port + "/", std::string("gopher://pics.example/"), std::string("javascript:1"),
           "http://pics.example:" + port + "\\@evil/"}) {
    to = bad;
    const Fetched fetched = fetch_one(options, url_of(host, "/start"));
    EXPECT_EQ(fetched.status, Status::kNotAllowed) << bad << fetched.bytes << fetched.problem;
  }
  EXPECT_EQ(inner.connections(), 0);
}

TEST(Fetcher, three_redirects_are_enough) {
  FakeHost host([](FakeHost::Peer& peer, const std::string& head) {
    const int left = head.at(5) - '0';
    peer.send(left == 0 ? whole_answer("good") : redirect("/" + std::to_string(left - 1), 307));
  });
  const FetchOptions options = options_for({host.port()});
  EXPECT_EQ(fetch_one(options, url_of(host, "/3")).bytes, "good");
  const int before = host.connections();
  EXPECT_EQ(fetch_one(options, url_of(host, "/9")).status, Status::kFailed);
  EXPECT_EQ(host.connections(), before + 4);
}

TEST(Fetcher, a_name_that_means_something_else_at_the_next_hop_leads_nowhere) {
  FakeHost host(always(redirect("/again")));
  FakeHost inner(always(whole_answer("secret")), "127.0.0.2", host.port());
  FetchOptions options = options_for({host.port()});
  options.resolve = [asked = 0](const Origin& origin) mutable {
    const char* address = asked++ == 0 ? "127.0.0.1" : "127.0.0.2";
    return std::vector<std::string>{origin.host + ":" + std::to_string(origin.port) + ":" + address};
  };
  EXPECT_EQ(fetch_one(options, url_of(host)).status, Status::kNotAllowed);
  EXPECT_EQ(host.connections(), 1);
  EXPECT_EQ(inner.connections(), 0);
}

TEST(Fetcher, bodies_and_heads_without_end_are_cut_off) {
  std::string start;
  std::string piece;
  FakeHost host([&](FakeHost::Peer& peer, const std::string&) {
    peer.send(start);
    while (peer.send(piece)) {
    }
  });
  FetchOptions options = options_for({host.port()});
  options.max_bytes = 1 << 20;
  start = "HTTP/1.1 200 OK\r\n\r\n", piece = std::string(65536, 'x');
  EXPECT_EQ(fetch_one(options, url_of(host)).status, Status::kTooLarge);
  start = "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n";
  EXPECT_EQ(fetch_one(options, url_of(host)).status, Status::kTooLarge);
  start = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", piece = "1000\r\n" + std::string(4096, 'x') + "\r\n";
  EXPECT_EQ(fetch_one(options, url_of(host)).status, Status::kTooLarge);
  start = "HTTP/1.1 200 OK\r\n", piece = "X-Header: " + std::string(1000, 'x') + "\r\n";
  EXPECT_EQ(fetch_one(options, url_of(host)).status, Status::kFailed);
  start = "HTTP/1.1 404 Not Found\r\n\r\n", piece = std::string(65536, 'x');
  EXPECT_EQ(fetch_one(options, url_of(host)).status, Status::kTooLarge);
}

TEST(Fetcher, slow_hosts_are_left) {
  FakeHost silent([](FakeHost::Peer& peer, const std::string&) { peer.wait(120'000); });
  FakeHost drip([](FakeHost::Peer& peer, const std::string&) {
    peer.send("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n");
    while (peer.send("x") && peer.wait(30)) {
    }
  });
  FetchOptions options = options_for({silent.port(), drip.port()});
  options.timeout_ms = 300;
  for (const FakeHost* host : {&silent, &drip}) {
    const auto begin = Clock::now();
    EXPECT_EQ(fetch_one(options, url_of(*host)).status, Status::kFailed);
    EXPECT_LT(Clock::now() - begin, std::chrono::seconds(20));
  }
}

TEST(Fetcher, what_is_no_picture_file_of_a_server_has_failed) {
  for (const std::string& answer : std::vector<std::string>{
           std::string("HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nabc"), std::string("nonsense"),
           std::string(""), std::string("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"),
           std::string("HTTP/1.1 204 No\r\n\r\n"), std::string("HTTP/1.1 302 Moved\r\nContent-Length: 0\r\n\r\n"),
           std::string("HTTP/1.1 401 Who\r\nWWW-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n")}) {
    FakeHost host(always(answer));
    const Fetched fetched = fetch_one(options_for({host.port()}), url_of(host));
    EXPECT_NE(fetched.status, Status::kGood) << answer;
    EXPECT_EQ(host.last_head().find("Authorization"), std::string::npos);
  }
  FakeHost gone(always(""));
  Url url = url_of(gone);
  FetchOptions options = options_for({1});
  url.origin.port = 1;
  EXPECT_EQ(fetch_one(options, url).status, Status::kFailed);
}

TEST(Fetcher, is_cancelled_soon_and_takes_only_so_much_at_a_time) {
  FakeHost silent([](FakeHost::Peer& peer, const std::string&) { peer.wait(120'000); });
  FetchOptions options = options_for({silent.port()});
  options.max_batches = 2;
  options.timeout_ms = 60'000;
  const auto begin = Clock::now();
  {
    Fetcher fetcher(options);
    const std::vector<Fetched> results =
        fetch_all(fetcher, std::vector<Url>(9, url_of(silent)), [](Fetcher::Batch& batch) { Fetcher::cancel(batch); });
    ASSERT_EQ(results.size(), 9u);
    for (const Fetched& fetched : results) EXPECT_EQ(fetched.status, Status::kCancelled);
    const auto nothing = [](std::vector<Fetched>) {};
    const auto a = fetcher.start({url_of(silent)}, nothing), b = fetcher.start({url_of(silent)}, nothing);
    EXPECT_NE(b, nullptr);
    EXPECT_EQ(fetcher.start({url_of(silent)}, nothing), nullptr);
  }
  EXPECT_LT(Clock::now() - begin, std::chrono::seconds(30));
}

TEST(Fetcher, pictures_of_one_request_are_limited_together) {
  FakeHost host(always(whole_answer(std::string(1000, 'x'))));
  FetchOptions options = options_for({host.port()});
  options.max_batch_bytes = 2500;
  Fetcher fetcher(options);
  EXPECT_EQ(fetch_all(fetcher, std::vector<Url>(2, url_of(host))).back().status, Status::kGood);
  int large = 0;
  for (const Fetched& fetched : fetch_all(fetcher, std::vector<Url>(4, url_of(host))))
    large += fetched.status == Status::kTooLarge;
  EXPECT_GE(large, 1);
}

// ---- Through the server --------------------------------------------------------------------------------------------

std::string chat_about(const std::string& url) {
  return R"({"messages":[{"role":"user","content":[{"type":"text","text":"?"},{"type":"image_url","image_url":{"url":")" +
         url + "\"}}]}]}";
}

TEST(FetchedPictures, reach_the_engine_and_errors_name_their_field) {
  FakeHost host([](FakeHost::Peer& peer, const std::string& head) {
    if (head.starts_with("GET /missing ")) peer.send("HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n");
    if (head.starts_with("GET /large ")) peer.send(whole_answer(std::string(20'000, 'x')));
    peer.send(whole_answer("the bytes"));
  });
  openai::ServiceOptions service;
  service.fetch = options_for({host.port()});
  service.fetch.max_bytes = 10'000;
  openai::Served served(service);
  const std::string base = "http://pics.example:" + std::to_string(host.port());
  const http::Reply reply = ask(served, openai::post("/v1/chat/completions", chat_about(base + "/x.png")));
  EXPECT_EQ(reply.status, 200) << reply.body;
  const idefics::Request request = served.backend->last_request();
  ASSERT_EQ(request.messages.at(0).content.size(), 2u);
  EXPECT_EQ(request.messages[0].content[0].text, "?");
  EXPECT_EQ(request.messages[0].content[1].image, "the bytes");
  EXPECT_EQ(ask(served, openai::post("/tokenize", chat_about(base + "/x.png"))).status, 200);

  const int submitted = served.backend->submitted();
  const auto expect_code = [&](const std::string& url, const std::string& code) {
    for (const char* route : {"/v1/chat/completions", "/tokenize"}) {
      const http::Reply refused = ask(served, openai::post(route, chat_about(url)));
      openai::expect_error(refused, 400, "invalid_request_error", code, url);
      EXPECT_EQ(json::parse(refused.body).at("error").at("param"), "messages[0].content[1].image_url") << url;
    }
  };
  expect_code(base + "/missing", "failed_to_download_image");
  expect_code(base + "/large", "image_too_large");
  expect_code("http://pics.example:1/x", "image_url_not_allowed");
  expect_code("https://evil.example/x", "image_url_not_allowed");
  expect_code("http://127.0.0.1:" + std::to_string(host.port()) + "/x", "image_url_not_allowed");
  expect_code("http://user@pics.example/x", "image_url_not_allowed");
  EXPECT_EQ(served.backend->submitted(), submitted);
  expect_canary(served);
}

TEST(FetchedPictures, hold_nobody_up_and_are_left_when_the_client_goes) {
  std::atomic<int> waiting = 0;
  FakeHost silent([&](FakeHost::Peer& peer, const std::string&) {
    ++waiting;
    peer.wait(120'000);
    --waiting;
  });
  openai::ServiceOptions service;
  service.fetch = options_for({silent.port()});
  service.fetch.timeout_ms = 60'000;
  openai::Served served(service);
  const std::string body = chat_about("http://pics.example:" + std::to_string(silent.port()) + "/");
  const auto wait_for = [&](int count) {
    const auto begin = Clock::now();
    while (waiting != count && Clock::now() - begin < std::chrono::seconds(30))
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    EXPECT_EQ(waiting, count);
  };
  {
    std::vector<std::unique_ptr<http::TestClient>> clients;
    for (int i = 0; i < 4; ++i) {
      clients.push_back(std::make_unique<http::TestClient>(served.port()));
      clients.back()->send(openai::post("/v1/chat/completions", body));
    }
    wait_for(4);
    for (int i = 0; i < 5; ++i) expect_canary(served);
  }
  wait_for(0);
  EXPECT_EQ(served.backend->submitted(), 5);
  // The end of the server does not wait for them either.
  http::TestClient client(served.port());
  client.send(openai::post("/v1/chat/completions", body));
  wait_for(1);
  served.service->begin_drain();
  served.service->cancel_all();
  const http::Reply reply = client.read(30'000);
  EXPECT_EQ(reply.status, 503) << reply.body;
}

}  // namespace
}  // namespace idefics::fetch
