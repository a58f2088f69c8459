#include "server/fetch/url.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>

#include "idefics/error.h"
#include "server/fetch/address.h"

namespace idefics::fetch {
namespace {

AllowedHosts hosts() {
  AllowedHosts hosts;
  for (const char* entry : {"a.example", "B.Example:8443", "http://c.example", "http://c.example:8080"})
    hosts.add(entry);
  return hosts;
}

TEST(FetchUrl, of_hosts_that_are_listed_are_taken_and_nothing_else_is) {
  struct Case {
    std::string url, expected;  // empty: refused
  };
  const std::string nul("https://a.example/\0x", 20);
  const std::vector<Case> cases = {
      // Good ones.
      {"https://a.example/x.png", "https://a.example/x.png"},
      {"https://a.example", "https://a.example/"},
      {"https://a.example?q=1", "https://a.example/?q=1"},
      {"HTTPS://A.EXAMPLE/X.png", "https://a.example/X.png"},
      {"https://a.example:443/x", "https://a.example/x"},
      {"https://a.example/x#y@b", "https://a.example/x"},
      {"https://a.example/@b.example/", "https://a.example/@b.example/"},
      {"https://a.example/?u=http://127.0.0.1/", "https://a.example/?u=http://127.0.0.1/"},
      {"https://a.example/%2e%2e/%41", "https://a.example/%2e%2e/%41"},
      {"https://b.example:8443/x", "https://b.example:8443/x"},
      {"http://c.example/x", "http://c.example/x"},
      {"http://c.example:80/x", "http://c.example/x"},
      {"http://c.example:8080/x", "http://c.example:8080/x"},
      // Other hosts, ports and schemes.
      {"https://x.example/", ""},
      {"https://a.example.evil/", ""},
      {"https://sub.a.example/", ""},
      {"https://aa.example/", ""},
      {"https://example/", ""},
      {"https://a.example./", ""},
      {"https://.a.example/", ""},
      {"https://a..example/", ""},
      {"http://a.example/", ""},
      {"https://c.example/", ""},
      {"https://a.example:80/", ""},
      {"https://a.example:8443/", ""},
      {"https://b.example/", ""},
      {"http://b.example:8443/", ""},
      {"https://a.example:22/", ""},
      {"https://a.example:0/", ""},
      {"https://a.example:65536/", ""},
      {"https://a.example:99999999999/", ""},
      {"https://a.example:0443/", ""},
      {"https://a.example:/", ""},
      {"https://a.example:443:443/", ""},
      {"https://a.example:+443/", ""},
      {"ftp://a.example/", ""},
      {"gopher://a.example/", ""},
      {"https:a.example/", ""},
      {"https:/a.example/", ""},
      {"https:///a.example/", ""},
      {"//a.example/", ""},
      {"https//a.example/", ""},
      {" https://a.example/", ""},
      // Somebody else in front.
      {"https://user@a.example/", ""},
      {"https://user:pass@a.example/", ""},
      {"https://a.example@evil.example/", ""},
      {"https://a.example:443@evil.example/", ""},
      {"https://@a.example/", ""},
      {"https://evil.example#@a.example/", ""},
      {"https://evil.example?@a.example/", ""},
      // Backslashes, blanks, control characters, percent signs, other alphabets.
      {"https://a.example\\@evil.example/", ""},
      {"https://evil.example\\.a.example/", ""},
      {"https:\\\\a.example\\x", ""},
      {"https://a.example/a\\b", ""},
      {"https://a.example/a b", ""},
      {"https://a.example\t/", ""},
      {"https://a.exam\nple/", ""},
      {"https://a.example/\r\nHost: evil", ""},
      {nul, ""},
      {"https://a.example%00.evil/", ""},
      {"https://%61.example/", ""},
      {"https://a%2eexample/", ""},
      {"https://\xd0\xb0.example/", ""},
      {"https://a\xe3\x80\x82"
       "example/",
       ""},
      {"https://\xef\xbd\x81.example/", ""},
      // Addresses in all forms.
      {"https://127.0.0.1/", ""},
      {"https://127.1/", ""},
      {"https://2130706433/", ""},
      {"https://017700000001/", ""},
      {"https://0x7f000001/", ""},
      {"https://0x7f.0.0.1/", ""},
      {"https://0177.0.0.1/", ""},
      {"https://93.184.216.34/", ""},
      {"https://0/", ""},
      {"https://[::1]/", ""},
      {"https://[::ffff:127.0.0.1]/", ""},
      {"https://[64:ff9b::7f00:1]/", ""},
      {"https://[fe80::1%25eth0]/", ""},
      {"https://[2606:2800:220:1::]/", ""},
      {"https://169.254.169.254/latest/meta-data/", ""},
      {"https://localhost/", ""},
      {"https://metadata.google.internal/", ""},
      {"https://" + std::string(64, 'a') + ".example/", ""},
      {"https://a.example/" + std::string(9000, 'a'), ""},
      {"https://", ""},
      {"https://-a.example/", ""},
      {"", ""},
  };
  EXPECT_GE(cases.size(), 80u);
  const AllowedHosts allowed = hosts();
  for (const Case& c : cases) {
    const std::optional<Url> url = parse_url(c.url);
    EXPECT_EQ(url && allowed.contains(url->origin) ? url->text() : "", c.expected) << c.url.substr(0, 100);
  }
}

TEST(FetchUrl, entries_of_the_list_are_plain_names) {
  for (const char* entry :
       {"", " ", "*", "*.example", "a.example/", "https://a.example/x", "a.example?x", "127.0.0.1", "[::1]",
        "user@a.example", "ftp://a.example", "a.example:", "a.example:0", "a,b", "a.example#"})
    EXPECT_THROW(AllowedHosts().add(entry), Error) << entry;
  AllowedHosts allowed;
  EXPECT_TRUE(allowed.empty());
  allowed.add("https://a.example");
  EXPECT_TRUE(allowed.contains({true, "a.example", 443}));
  EXPECT_FALSE(allowed.contains({false, "a.example", 443}));
}

TEST(FetchAddress, only_those_of_the_internet_at_large_are_global) {
  const auto global = [](const std::string& text) {
    sockaddr_storage storage{};
    if (::inet_pton(AF_INET, text.c_str(), &reinterpret_cast<sockaddr_in*>(&storage)->sin_addr) == 1) {
      storage.ss_family = AF_INET;
    } else {
      EXPECT_EQ(::inet_pton(AF_INET6, text.c_str(), &reinterpret_cast<sockaddr_in6*>(&storage)->sin6_addr), 1) << text;
      storage.ss_family = AF_INET6;
    }
    return is_global(reinterpret_cast<const sockaddr&>(storage));
  };
  for (const char* good :
       {"1.1.1.1",        "8.8.8.8",         "93.184.216.34",        "9.255.255.255",
        "11.0.0.0",       "100.63.255.255",  "100.128.0.0",          "126.255.255.255",
        "128.0.0.0",      "169.253.255.255", "169.255.0.0",          "172.15.255.255",
        "172.32.0.0",     "192.0.1.0",       "192.167.255.255",      "192.169.0.0",
        "198.17.255.255", "198.20.0.0",      "223.255.255.255",      "2606:2800:220:1:248:1893:25c8:1946",
        "2a00::1",        "2001:200::1",     "2001:4860:4860::8888", "2003::1",
        "2620:fe::fe"})
    EXPECT_TRUE(global(good)) << good;
  for (const char* bad : {"0.0.0.0",          "0.1.2.3",         "10.0.0.1",    "10.255.255.255",
                          "100.64.0.1",       "100.127.255.255", "127.0.0.1",   "127.255.255.255",
                          "169.254.169.254",  "169.254.0.1",     "172.16.0.1",  "172.31.255.255",
                          "192.0.0.1",        "192.0.0.170",     "192.0.2.1",   "192.88.99.1",
                          "192.168.0.1",      "192.168.255.255", "198.18.0.1",  "198.19.255.255",
                          "198.51.100.1",     "203.0.113.1",     "224.0.0.1",   "239.255.255.255",
                          "240.0.0.1",        "255.255.255.255", "::",          "::1",
                          "::ffff:127.0.0.1", "::ffff:8.8.8.8",  "::127.0.0.1", "64:ff9b::7f00:1",
                          "64:ff9b::808:808", "64:ff9b:1::1",    "100::1",      "2001::1",
                          "2001:2::1",        "2001:10::1",      "2001:20::1",  "2001:db8::1",
                          "2002:7f00:1::",    "2002:a00:1::1",   "3fff::1",     "3fff:fff::1",
                          "fc00::1",          "fd12:3456::1",    "fe80::1",     "fec0::1",
                          "ff02::1",          "5f00::1",         "4000::1"})
    EXPECT_FALSE(global(bad)) << bad;
  sockaddr unix_socket{};
  unix_socket.sa_family = AF_UNIX;
  EXPECT_FALSE(is_global(unix_socket));
}

}  // namespace
}  // namespace idefics::fetch
