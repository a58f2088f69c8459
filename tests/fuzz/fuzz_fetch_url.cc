// The URL of a picture to be fetched, and the address of a connection: what is taken means the same to libcurl, which
// makes the connection, and no address that stands for an inner one is global.
#include <curl/curl.h>
#include <netinet/in.h>

#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>

#include "server/fetch/address.h"
#include "server/fetch/url.h"

namespace {

using namespace idefics::fetch;

void require(bool good) {
  if (!good) std::abort();
}

std::string part(CURLU* url, CURLUPart what, unsigned flags = 0) {
  char* text = nullptr;
  if (::curl_url_get(url, what, &text, flags) != CURLUE_OK) return "";
  const std::string out(text);
  ::curl_free(text);
  return out;
}

void try_url(std::string_view text) {
  const std::optional<Url> url = parse_url(text);
  if (!url) return;
  const std::string written = url->text();
  require(written.find_first_of("\\@ \t\r\n", 0) >= written.find('/', 8));
  const std::optional<Url> again = parse_url(written);
  require(again && again->origin == url->origin && again->target == url->target);
  CURLU* curl = ::curl_url();
  require(curl != nullptr && ::curl_url_set(curl, CURLUPART_URL, written.c_str(), 0) == CURLUE_OK);
  require(part(curl, CURLUPART_HOST) == url->origin.host);
  require(part(curl, CURLUPART_SCHEME) == (url->origin.https ? "https" : "http"));
  require(part(curl, CURLUPART_PORT, CURLU_DEFAULT_PORT) == std::to_string(url->origin.port));
  require(part(curl, CURLUPART_USER).empty() && part(curl, CURLUPART_PASSWORD).empty());
  ::curl_url_cleanup(curl);
}

bool global4(uint32_t address) {
  sockaddr_in in{};
  in.sin_family = AF_INET;
  in.sin_addr.s_addr = htonl(address);
  return is_global(reinterpret_cast<const sockaddr&>(in));
}

bool global6(const uint8_t* bytes) {
  sockaddr_in6 in{};
  in.sin6_family = AF_INET6;
  std::memcpy(&in.sin6_addr, bytes, 16);
  return is_global(reinterpret_cast<const sockaddr&>(in));
}

void try_address(const uint8_t* bytes, size_t size) {
  if (size >= 4) {
    const uint32_t address = uint32_t{bytes[0]} << 24 | uint32_t{bytes[1]} << 16 | uint32_t{bytes[2]} << 8 | bytes[3];
    const bool inner = bytes[0] == 127 || bytes[0] == 10 || bytes[0] == 0 || bytes[0] >= 224 ||
                       (bytes[0] == 192 && bytes[1] == 168) || (bytes[0] == 172 && bytes[1] / 16 == 1) ||
                       (bytes[0] == 169 && bytes[1] == 254) || (bytes[0] == 100 && bytes[1] / 64 == 1);
    require(!(inner && global4(address)));
    // The same, mapped, translated and as 6to4.
    uint8_t mapped[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, bytes[0], bytes[1], bytes[2], bytes[3]};
    uint8_t nat64[16] = {0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0, bytes[0], bytes[1], bytes[2], bytes[3]};
    uint8_t relay[16] = {0x20, 0x02, bytes[0], bytes[1], bytes[2], bytes[3]};
    require(!global6(mapped) && !global6(nat64) && !global6(relay));
  }
  if (size >= 16) {
    in6_addr in;
    std::memcpy(&in, bytes, 16);
    const bool inner = IN6_IS_ADDR_LOOPBACK(&in) || IN6_IS_ADDR_LINKLOCAL(&in) || IN6_IS_ADDR_SITELOCAL(&in) ||
                       IN6_IS_ADDR_MULTICAST(&in) || IN6_IS_ADDR_V4MAPPED(&in) || IN6_IS_ADDR_UNSPECIFIED(&in) ||
                       IN6_IS_ADDR_V4COMPAT(&in) || bytes[0] / 2 == 0xfc / 2;
    require(!(inner && global6(bytes)));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try_url(text);
  try_url("https://" + std::string(text));
  if (size > 0) try_address(data + 1, size - 1);
  return 0;
}
