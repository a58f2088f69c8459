#include "server/fetch/url.h"

#include <fmt/format.h>

#include <algorithm>

#include "idefics/error.h"

namespace idefics::fetch {

namespace {

constexpr size_t kMaxUrlBytes = 8192, kMaxHostBytes = 253, kMaxLabelBytes = 63;

constexpr bool is_digit(char c) { return c >= '0' && c <= '9'; }
constexpr char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

std::string lower(std::string_view text) {
  std::string out(text);
  std::ranges::transform(out, out.begin(), [](char c) { return lower(c); });
  return out;
}

// Characters of RFC 3986, which leaves out blanks, quotes, backslashes and what is not ASCII.
bool is_url_char(char c) {
  return is_digit(c) || (lower(c) >= 'a' && lower(c) <= 'z') ||
         std::string_view("-._~:/?#[]@!$&'()*+,;=%").find(c) != std::string_view::npos;
}

bool is_label(std::string_view label) {
  if (label.empty() || label.size() > kMaxLabelBytes || label.front() == '-' || label.back() == '-') return false;
  return std::ranges::all_of(label,
                             [](char c) { return is_digit(c) || (c >= 'a' && c <= 'z') || c == '-' || c == '_'; });
}

// Readers of URLs take a name whose last part begins with a digit for an address: 127.1, 017700000001, 0x7f000001.
bool is_name(std::string_view host) {
  if (host.empty() || host.size() > kMaxHostBytes) return false;
  size_t start = 0;
  for (;;) {
    const size_t dot = std::min(host.find('.', start), host.size());
    const std::string_view label = host.substr(start, dot - start);
    if (!is_label(label)) return false;
    if (dot == host.size()) return !is_digit(label.front());
    start = dot + 1;
  }
}

std::optional<int> parse_port(std::string_view text) {
  if (text.empty() || text.size() > 5 || !std::ranges::all_of(text, is_digit) || text.front() == '0')
    return std::nullopt;
  int port = 0;
  for (const char c : text) port = 10 * port + (c - '0');
  return port <= 65535 ? std::optional(port) : std::nullopt;
}

}  // namespace

std::string Url::text() const {
  const bool usual = origin.port == (origin.https ? 443 : 80);
  return fmt::format("{}://{}{}{}", origin.https ? "https" : "http", origin.host,
                     usual ? "" : fmt::format(":{}", origin.port), target);
}

std::optional<Url> parse_url(std::string_view text) {
  if (text.size() > kMaxUrlBytes || !std::ranges::all_of(text, is_url_char)) return std::nullopt;
  Url url;
  const std::string scheme = lower(text.substr(0, 8));
  if (scheme == "https://") {
    text.remove_prefix(8);
  } else if (scheme.starts_with("http://")) {
    url.origin.https = false;
    url.origin.port = 80;
    text.remove_prefix(7);
  } else {
    return std::nullopt;
  }
  const std::string_view authority = text.substr(0, text.find_first_of("/?#"));
  const size_t colon = authority.find(':');
  url.origin.host = lower(authority.substr(0, colon));
  if (!is_name(url.origin.host)) return std::nullopt;
  if (colon != std::string_view::npos) {
    const std::optional<int> port = parse_port(authority.substr(colon + 1));
    if (!port) return std::nullopt;
    url.origin.port = *port;
  }
  std::string_view target = text.substr(authority.size());
  target = target.substr(0, target.find('#'));
  url.target = target.starts_with('/') ? std::string(target) : "/" + std::string(target);
  return url;
}

void AllowedHosts::add(std::string_view entry) {
  const std::string text(entry);
  const std::optional<Url> url = parse_url(text.find("://") == std::string::npos ? "https://" + text : text);
  if (!url || url->target != "/" || text.ends_with('/') || text.find_first_of("?#") != std::string::npos) {
    throw Error(ErrorCode::kUsage,
                fmt::format("--allowed-media-domains has \"{}\", wanted names of hosts like images.example.org, "
                            "images.example.org:8443 or http://images.example.org",
                            text));
  }
  origins_.push_back(url->origin);
}

bool AllowedHosts::contains(const Origin& origin) const {
  return std::ranges::find(origins_, origin) != origins_.end();
}

}  // namespace idefics::fetch
