// URLs that a server may fetch, read strictly: what is not plainly one is none.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace idefics::fetch {

struct Origin {
  bool https = true;
  std::string host;  // a name, in small letters; never an address
  int port = 443;
  bool operator==(const Origin&) const = default;
};

struct Url {
  Origin origin;
  std::string target;  // path and query, "/..."

  std::string text() const;
};

// http:// or https://, a name, perhaps a port, perhaps path and query; a fragment is dropped. Nothing for anything
// else: user names, addresses in whatever form (127.1, 0x7f000001, [::1]), backslashes, blanks, control and non-ASCII
// characters, percent signs in the name, names that end in a dot or a number, over 8 KiB.
std::optional<Url> parse_url(std::string_view text);

// The hosts of --allowed-media-domains.
class AllowedHosts {
 public:
  // "example.org" (https, port 443), "example.org:8443", "http://example.org", "http://example.org:8080".
  // Error kUsage: anything else.
  void add(std::string_view entry);
  bool empty() const { return origins_.empty(); }
  // The same name, port and scheme, nothing below it and nothing above it.
  bool contains(const Origin& origin) const;

 private:
  std::vector<Origin> origins_;
};

}  // namespace idefics::fetch
