// Who may ask: keys, names of this host, pages of other hosts.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "server/http/message.h"
#include "server/openai/api_error.h"

namespace idefics::openai {

class Access {
 public:
  struct Options {
    std::vector<std::string> api_keys;  // none: nobody needs one
    // The names that a Host header may have ("localhost", "127.0.0.1"), without a port; none: any. A page of a foreign
    // name that resolves to this machine (DNS rebinding) is refused by it.
    std::vector<std::string> hosts;
    std::vector<std::string> origins;  // of other pages that may ask, "https://example.org"
  };
  explicit Access(const Options& options);

  // 403 for a Host or an Origin that is not allowed.
  std::optional<ApiError> refuse_place(const http::Request& request) const;
  // 401 without one of the keys. Takes the same time whatever is wrong with it.
  std::optional<ApiError> refuse_key(const http::Request& request) const;
  // Which of the keys a request has; nothing without one of them.
  std::optional<size_t> find_key(const http::Request& request) const;
  size_t num_keys() const { return keys_.size(); }
  // What a browser wants to see before it shows our answer to a page of a listed origin; empty for all others.
  http::Headers cors_headers(const http::Request& request) const;

 private:
  using Digest = std::array<unsigned char, 32>;
  static Digest digest(std::string_view key);

  std::vector<Digest> keys_;
  std::vector<std::string> hosts_, origins_;
};

}  // namespace idefics::openai
