#include "server/fetch/fetcher.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>

#include "idefics/error.h"

namespace idefics::fetch {

class Fetcher::Batch {
 public:
  std::vector<Url> urls;
  std::vector<Fetched> results;
  std::function<void(std::vector<Fetched>)> done;
  std::atomic<size_t> left = 0;
  std::atomic<int64_t> bytes_left = 0;
  std::atomic<bool> cancelled = false;
};

namespace {

using Clock = std::chrono::steady_clock;
using Status = Fetched::Status;

constexpr size_t kMaxHeaderBytes = 64 << 10;
constexpr long kConnectMs = 5000;

struct CloseEasy {
  void operator()(CURL* easy) const { ::curl_easy_cleanup(easy); }
};
struct FreeList {
  void operator()(curl_slist* list) const { ::curl_slist_free_all(list); }
};

// One connection and what came over it.
struct Hop {
  const FetchOptions& options;
  const std::atomic<bool>& cancelled;
  std::atomic<int64_t>& batch_bytes_left;
  std::string body = {};
  size_t header_bytes = 0;
  bool forbidden_address = false, too_large = false;
};

Hop& hop_of(void* user) { return *static_cast<Hop*>(user); }

curl_socket_t open_socket(void* user, curlsocktype, curl_sockaddr* address) {
  Hop& hop = hop_of(user);
  if (!hop.options.allowed_address(address->addr)) {
    hop.forbidden_address = true;
    return CURL_SOCKET_BAD;
  }
  return ::socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

// The other end of the connection that was made, looked at once more.
int before_request(void* user, char* peer, char*, int, int) {
  Hop& hop = hop_of(user);
  sockaddr_storage address{};
  auto* v4 = reinterpret_cast<sockaddr_in*>(&address);
  auto* v6 = reinterpret_cast<sockaddr_in6*>(&address);
  if (::inet_pton(AF_INET, peer, &v4->sin_addr) == 1) {
    address.ss_family = AF_INET;
  } else if (::inet_pton(AF_INET6, peer, &v6->sin6_addr) == 1) {
    address.ss_family = AF_INET6;
  }
  if (!hop.options.allowed_address(reinterpret_cast<const sockaddr&>(address))) hop.forbidden_address = true;
  return hop.forbidden_address || hop.cancelled ? CURL_PREREQFUNC_ABORT : CURL_PREREQFUNC_OK;
}

size_t take_body(char* data, size_t, size_t size, void* user) {
  Hop& hop = hop_of(user);
  hop.batch_bytes_left -= static_cast<int64_t>(size);
  hop.too_large = hop.body.size() + size > hop.options.max_bytes || hop.batch_bytes_left < 0;
  if (hop.too_large) return 0;
  hop.body.append(data, size);
  return size;
}

size_t take_header(char*, size_t, size_t size, void* user) {
  Hop& hop = hop_of(user);
  hop.header_bytes += size;
  return hop.header_bytes > kMaxHeaderBytes ? 0 : size;
}

int is_cancelled(void* user, curl_off_t, curl_off_t, curl_off_t, curl_off_t) { return hop_of(user).cancelled; }

template <class Value>
void set(CURL* easy, CURLoption option, Value value) {
  if (::curl_easy_setopt(easy, option, value) != CURLE_OK)
    throw Error(ErrorCode::kInternal, fmt::format("libcurl does not know the option {}", static_cast<int>(option)));
}

void configure(CURL* easy, const Url& url, Hop& hop, int timeout_ms, curl_slist* addresses) {
  set(easy, CURLOPT_URL, url.text().c_str());
  set(easy, CURLOPT_PROTOCOLS_STR, url.origin.https ? "https" : "http");
  set(easy, CURLOPT_FOLLOWLOCATION, 0L);  // each hop is looked at first
  set(easy, CURLOPT_PROXY, "");           // not from the environment either
  set(easy, CURLOPT_NETRC, long{CURL_NETRC_IGNORED});
  set(easy, CURLOPT_HTTP_CONTENT_DECODING, 0L);
  set(easy, CURLOPT_HTTP_VERSION, long{CURL_HTTP_VERSION_1_1});
  set(easy, CURLOPT_HTTP09_ALLOWED, 0L);
  set(easy, CURLOPT_SSLVERSION, long{CURL_SSLVERSION_TLSv1_2});
  set(easy, CURLOPT_USERAGENT, "idefics");
  set(easy, CURLOPT_NOSIGNAL, 1L);
  set(easy, CURLOPT_QUICK_EXIT, 1L);  // a name server that does not answer must not hold up the end
  set(easy, CURLOPT_TIMEOUT_MS, long{timeout_ms});
  set(easy, CURLOPT_CONNECTTIMEOUT_MS, std::min(kConnectMs, long{timeout_ms}));
  set(easy, CURLOPT_MAXFILESIZE_LARGE, static_cast<curl_off_t>(hop.options.max_bytes));
  set(easy, CURLOPT_OPENSOCKETFUNCTION, open_socket);
  set(easy, CURLOPT_OPENSOCKETDATA, static_cast<void*>(&hop));
  set(easy, CURLOPT_PREREQFUNCTION, before_request);
  set(easy, CURLOPT_PREREQDATA, static_cast<void*>(&hop));
  set(easy, CURLOPT_WRITEFUNCTION, take_body);
  set(easy, CURLOPT_WRITEDATA, static_cast<void*>(&hop));
  set(easy, CURLOPT_HEADERFUNCTION, take_header);
  set(easy, CURLOPT_HEADERDATA, static_cast<void*>(&hop));
  set(easy, CURLOPT_NOPROGRESS, 0L);
  set(easy, CURLOPT_XFERINFOFUNCTION, is_cancelled);
  set(easy, CURLOPT_XFERINFODATA, static_cast<void*>(&hop));
  if (addresses) set(easy, CURLOPT_RESOLVE, addresses);
  if (!hop.options.certificates.empty()) set(easy, CURLOPT_CAINFO, hop.options.certificates.c_str());
}

bool is_redirect(long status) {
  return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

Fetched failure(Status status, std::string problem) {
  return {.status = status, .bytes = {}, .problem = std::move(problem)};
}

Fetched failure_of(CURLcode code, const Hop& hop) {
  if (hop.cancelled) return failure(Status::kCancelled, "it was cancelled");
  if (hop.forbidden_address) return failure(Status::kNotAllowed, "the host has an address that is not allowed");
  if (hop.too_large || code == CURLE_FILESIZE_EXCEEDED)
    return failure(Status::kTooLarge, fmt::format("the picture has over {} bytes", hop.options.max_bytes));
  switch (code) {
    case CURLE_COULDNT_RESOLVE_HOST: return failure(Status::kFailed, "the host is not known");
    case CURLE_COULDNT_CONNECT: return failure(Status::kFailed, "the host cannot be reached");
    case CURLE_OPERATION_TIMEDOUT: return failure(Status::kFailed, "the host took too long");
    case CURLE_PEER_FAILED_VERIFICATION: return failure(Status::kFailed, "the host has no certificate that is trusted");
    // Also when a certificate names an authority that did not sign it: OpenSSL's first error is one about the
    // signature.
    case CURLE_SSL_CONNECT_ERROR:
      return failure(Status::kFailed, "the host does not speak TLS, or has no certificate that is trusted");
    default: return failure(Status::kFailed, "the host did not send it");
  }
}

}  // namespace

Fetcher::Fetcher(FetchOptions options) : options_(std::move(options)) {
  static const CURLcode started = ::curl_global_init(CURL_GLOBAL_DEFAULT);
  if (started != CURLE_OK) throw Error(ErrorCode::kInternal, "libcurl cannot be started");
  for (int i = 0; i < options_.threads; ++i) threads_.emplace_back([this] { work(); });
}

Fetcher::~Fetcher() {
  cancel_all();
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
    tasks_.clear();
  }
  changed_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

std::shared_ptr<Fetcher::Batch> Fetcher::start(std::vector<Url> urls, std::function<void(std::vector<Fetched>)> done) {
  auto batch = std::make_shared<Batch>();
  batch->results.resize(urls.size());
  batch->left = urls.size();
  batch->bytes_left = static_cast<int64_t>(options_.max_batch_bytes);
  batch->urls = std::move(urls);
  batch->done = std::move(done);
  {
    const std::lock_guard lock(mutex_);
    std::erase_if(batches_, [](const auto& weak) {
      const std::shared_ptr<Batch> other = weak.lock();
      return !other || other->left == 0;  // its thread may hold it for a moment longer
    });
    if (batches_.size() >= options_.max_batches) return nullptr;
    batches_.push_back(batch);
    for (size_t i = 0; i < batch->urls.size(); ++i) tasks_.push_back({batch, i});
  }
  changed_.notify_all();
  return batch;
}

void Fetcher::cancel(Batch& batch) { batch.cancelled = true; }

void Fetcher::cancel_all() {
  const std::lock_guard lock(mutex_);
  for (const auto& weak : batches_) {
    if (const std::shared_ptr<Batch> batch = weak.lock()) batch->cancelled = true;
  }
}

void Fetcher::work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [&] { return ending_ || !tasks_.empty(); });
    if (ending_) return;
    const Task task = std::move(tasks_.front());
    tasks_.pop_front();
    lock.unlock();
    Batch& batch = *task.batch;
    try {
      batch.results[task.index] = fetch(batch.urls[task.index], batch);
    } catch (const std::exception&) {  // no memory
      batch.results[task.index] = failure(Status::kFailed, "there is no memory for it");
    }
    // One that failed decides: the others are not waited for.
    if (batch.results[task.index].status != Status::kGood) batch.cancelled = true;
    if (--batch.left == 0) batch.done(std::move(batch.results));
    lock.lock();
  }
}

Fetched Fetcher::fetch(const Url& first, Batch& batch) const {
  const auto deadline = Clock::now() + std::chrono::milliseconds(options_.timeout_ms);
  Url url = first;
  for (int hops = 0;; ++hops) {
    if (batch.cancelled) return failure(Status::kCancelled, "it was cancelled");
    if (!options_.hosts.contains(url.origin))
      return failure(Status::kNotAllowed, hops == 0 ? "its host is not one that this server fetches from"
                                                    : "it leads to a host that this server does not fetch from");
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
    if (left <= 0) return failure(Status::kFailed, "the host took too long");

    const std::unique_ptr<CURL, CloseEasy> easy(::curl_easy_init());
    if (!easy) return failure(Status::kFailed, "there is no memory for it");
    std::unique_ptr<curl_slist, FreeList> addresses;
    for (const std::string& entry : options_.resolve ? options_.resolve(url.origin) : std::vector<std::string>())
      addresses.reset(::curl_slist_append(addresses.release(), entry.c_str()));
    Hop hop{.options = options_, .cancelled = batch.cancelled, .batch_bytes_left = batch.bytes_left};
    configure(easy.get(), url, hop, static_cast<int>(left), addresses.get());
    const CURLcode code = ::curl_easy_perform(easy.get());
    long status = 0;
    ::curl_easy_getinfo(easy.get(), CURLINFO_RESPONSE_CODE, &status);
    if (code != CURLE_OK) return failure_of(code, hop);
    if (status == 200) return {.status = Status::kGood, .bytes = std::move(hop.body), .problem = {}};
    if (!is_redirect(status)) return failure(Status::kFailed, fmt::format("the host answered {}", status));
    if (hops == options_.max_redirects) return failure(Status::kFailed, "it is redirected too often");
    const char* next = nullptr;
    ::curl_easy_getinfo(easy.get(), CURLINFO_REDIRECT_URL, &next);
    const std::optional<Url> target = next ? parse_url(next) : std::nullopt;
    if (!target) return failure(Status::kNotAllowed, "it leads to what is no plain http or https URL");
    url = *target;
  }
}

}  // namespace idefics::fetch
