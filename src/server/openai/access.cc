#include "server/openai/access.h"

#include <openssl/crypto.h>
#include <openssl/sha.h>

#include <algorithm>

namespace idefics::openai {

namespace {

// "localhost:8000" -> "localhost", "[::1]:8000" -> "[::1]".
std::string_view without_port(std::string_view host) {
  if (host.starts_with('[')) return host.substr(0, std::min(host.find(']') + 1, host.size()));
  return host.substr(0, host.find(':'));
}

bool contains(const std::vector<std::string>& list, std::string_view word) {
  return std::any_of(list.begin(), list.end(), [&](const std::string& entry) { return http::same_word(entry, word); });
}

// A page that this server gave out asks under the name by which it was fetched.
bool is_same_origin(std::string_view origin, std::string_view host) {
  const size_t colon = origin.find("://");
  return colon != std::string_view::npos && !host.empty() && http::same_word(origin.substr(colon + 3), host);
}

}  // namespace

Access::Access(const Options& options) : hosts_(options.hosts), origins_(options.origins) {
  for (const std::string& key : options.api_keys) keys_.push_back(digest(key));
}

Access::Digest Access::digest(std::string_view key) {
  Digest out;
  ::SHA256(reinterpret_cast<const unsigned char*>(key.data()), key.size(), out.data());
  return out;
}

std::optional<ApiError> Access::refuse_place(const http::Request& request) const {
  const std::string_view host = request.header("host");
  if (!hosts_.empty() && !contains(hosts_, without_port(host)))
    return ApiError(403, "permission_error", "host_not_allowed", "",
                    "this server does not go by the name of the Host header; see --allowed-hosts");
  const std::string_view origin = request.header("origin");
  if (!origin.empty() && !is_same_origin(origin, host) && !contains(origins_, origin))
    return ApiError(403, "permission_error", "origin_not_allowed", "",
                    "pages of this origin may not use this server; see --allowed-origins");
  return std::nullopt;
}

std::optional<size_t> Access::find_key(const http::Request& request) const {
  std::string_view given = request.header("authorization");
  constexpr std::string_view kScheme = "bearer ";
  const bool bearer = given.size() > kScheme.size() && http::same_word(given.substr(0, kScheme.size()), kScheme);
  given = bearer ? http::trimmed(given.substr(kScheme.size())) : std::string_view();
  // Digests have one length, and every key is looked at: the time tells nothing about how much of a key was right.
  const Digest found = digest(given);
  size_t equal = 0;  // its number, from 1 on
  for (size_t i = 0; i < keys_.size(); ++i)
    equal = std::max(equal,
                     (i + 1) * static_cast<size_t>(::CRYPTO_memcmp(keys_[i].data(), found.data(), found.size()) == 0));
  if (equal == 0 || !bearer) return std::nullopt;
  return equal - 1;
}

std::optional<ApiError> Access::refuse_key(const http::Request& request) const {
  if (keys_.empty() || find_key(request)) return std::nullopt;
  return ApiError(401, "authentication_error", "invalid_api_key", "",
                  "wanted a valid API key, as in \"Authorization: Bearer KEY\"");
}

http::Headers Access::cors_headers(const http::Request& request) const {
  const std::string_view origin = request.header("origin");
  if (origins_.empty() || !contains(origins_, origin)) return {};
  return {{"access-control-allow-origin", std::string(origin)},
          {"vary", "origin"},
          {"access-control-expose-headers", "x-request-id, retry-after"}};
}

}  // namespace idefics::openai
