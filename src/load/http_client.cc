#include "load/http_client.h"

#include <curl/curl.h>
#include <fmt/format.h>

#include <map>
#include <utility>

#include "idefics/error.h"

namespace idefics::load {

namespace {

constexpr size_t kMaxHeadBytes = size_t{64} << 10;
constexpr long kIdleConnections = 4096;

// curl_easy_setopt takes anything and believes it.
template <typename T>
void set(CURL* easy, CURLoption option, T value) {
  const CURLcode code = ::curl_easy_setopt(easy, option, value);
  if (code != CURLE_OK)
    throw Error(ErrorCode::kUsage, fmt::format("the request cannot be made: {}", ::curl_easy_strerror(code)));
}

struct Transfer {
  HttpRequest request;
  HttpClient::OnBytes on_bytes;
  HttpClient::OnEnd on_end;
  CURL* easy = nullptr;
  curl_slist* headers = nullptr;
  size_t head_bytes = 0;
  bool enough = false;  // its owner wants no more

  int status() const {
    long code = 0;
    ::curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &code);
    return static_cast<int>(code);
  }
};

size_t take_head(char*, size_t size, size_t count, void* owner) {
  auto& transfer = *static_cast<Transfer*>(owner);
  transfer.head_bytes += size * count;
  return transfer.head_bytes <= kMaxHeadBytes ? size * count : 0;
}

size_t take_body(char* data, size_t size, size_t count, void* owner) {
  auto& transfer = *static_cast<Transfer*>(owner);
  transfer.enough = !transfer.on_bytes(transfer.status(), {data, size * count});
  return transfer.enough ? 0 : size * count;
}

}  // namespace

struct HttpClient::State {
  CURLM* multi = nullptr;
  std::map<CURL*, std::unique_ptr<Transfer>> running;
  std::vector<CURL*> spare;

  void finish(CURL* easy, CURLcode code);
  void release(Transfer& transfer) {
    ::curl_multi_remove_handle(multi, transfer.easy);
    ::curl_slist_free_all(transfer.headers);
    spare.push_back(transfer.easy);
  }
};

HttpClient::HttpClient() : state_(std::make_unique<State>()) {
  if (::curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK) state_->multi = ::curl_multi_init();
  if (state_->multi == nullptr) throw Error(ErrorCode::kOutOfMemory, "libcurl cannot begin; free some memory");
  ::curl_multi_setopt(state_->multi, CURLMOPT_MAXCONNECTS, kIdleConnections);
}

HttpClient::~HttpClient() {
  for (const auto& [easy, transfer] : state_->running) state_->release(*transfer);
  for (CURL* easy : state_->spare) ::curl_easy_cleanup(easy);
  ::curl_multi_cleanup(state_->multi);
  ::curl_global_cleanup();
}

void HttpClient::start(HttpRequest request, OnBytes on_bytes, OnEnd on_end) {
  auto transfer = std::make_unique<Transfer>();
  transfer->request = std::move(request);
  transfer->on_bytes = std::move(on_bytes);
  transfer->on_end = std::move(on_end);
  if (!state_->spare.empty()) {
    transfer->easy = state_->spare.back();
    state_->spare.pop_back();
    ::curl_easy_reset(transfer->easy);
  } else {
    transfer->easy = ::curl_easy_init();
  }
  CURL* easy = transfer->easy;
  if (easy == nullptr) throw Error(ErrorCode::kOutOfMemory, "no memory for a request; ask for fewer at once");
  const HttpRequest& wanted = transfer->request;
  for (const std::string& header : wanted.headers)
    transfer->headers = ::curl_slist_append(transfer->headers, header.c_str());
  // Without this curl waits for leave to send a large body.
  transfer->headers = ::curl_slist_append(transfer->headers, "Expect:");
  set(easy, CURLOPT_URL, wanted.url.c_str());
  if (!wanted.unix_path.empty()) set(easy, CURLOPT_UNIX_SOCKET_PATH, wanted.unix_path.c_str());
  set(easy, CURLOPT_PROTOCOLS_STR, "http,https");
  set(easy, CURLOPT_HTTP_VERSION, long{CURL_HTTP_VERSION_1_1});
  set(easy, CURLOPT_PROXY, "");
  set(easy, CURLOPT_NOSIGNAL, 1L);
  set(easy, CURLOPT_TIMEOUT_MS, static_cast<long>(wanted.timeout_ms));
  set(easy, CURLOPT_HTTPHEADER, transfer->headers);
  set(easy, CURLOPT_HEADERFUNCTION, &take_head);
  set(easy, CURLOPT_HEADERDATA, static_cast<void*>(transfer.get()));
  set(easy, CURLOPT_WRITEFUNCTION, &take_body);
  set(easy, CURLOPT_WRITEDATA, static_cast<void*>(transfer.get()));
  if (wanted.body) {
    set(easy, CURLOPT_POST, 1L);
    set(easy, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(wanted.body->size()));
    set(easy, CURLOPT_POSTFIELDS, wanted.body->data());
  }
  ::curl_multi_add_handle(state_->multi, easy);
  state_->running[easy] = std::move(transfer);
}

void HttpClient::State::finish(CURL* easy, CURLcode code) {
  const auto found = running.find(easy);
  if (found == running.end()) return;
  const std::unique_ptr<Transfer> transfer = std::move(found->second);
  running.erase(found);
  const int status = transfer->status();
  std::string problem = code == CURLE_OK || transfer->enough ? "" : ::curl_easy_strerror(code);
  if (transfer->head_bytes > kMaxHeadBytes) problem = "the head of the response is too large";
  release(*transfer);
  transfer->on_end(status, problem);
}

void HttpClient::run(int timeout_ms) {
  int active = 0;
  ::curl_multi_perform(state_->multi, &active);
  std::vector<std::pair<CURL*, CURLcode>> ended;
  const auto collect = [&] {
    int left = 0;
    while (const CURLMsg* message = ::curl_multi_info_read(state_->multi, &left)) {
      if (message->msg == CURLMSG_DONE) ended.emplace_back(message->easy_handle, message->data.result);
    }
  };
  collect();
  if (ended.empty()) {
    ::curl_multi_poll(state_->multi, nullptr, 0, timeout_ms, nullptr);
    ::curl_multi_perform(state_->multi, &active);
    collect();
  }
  for (const auto& [easy, code] : ended) state_->finish(easy, code);
}

int HttpClient::running() const { return static_cast<int>(state_->running.size()); }

}  // namespace idefics::load
