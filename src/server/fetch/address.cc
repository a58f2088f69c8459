#include "server/fetch/address.h"

#include <netinet/in.h>

#include <cstdint>
#include <cstring>

namespace idefics::fetch {

namespace {

struct Block {
  uint32_t first;
  int bits;
};

constexpr uint32_t v4(uint32_t a, uint32_t b, uint32_t c = 0) { return a << 24 | b << 16 | c << 8; }

// What is not global, of those that IPv4 has.
constexpr Block kSpecial4[] = {
    {v4(0, 0), 8},           // this network
    {v4(10, 0), 8},          // private
    {v4(100, 64), 10},       // shared by a provider's customers
    {v4(127, 0), 8},         // this machine
    {v4(169, 254), 16},      // this link; the metadata of clouds
    {v4(172, 16), 12},       // private
    {v4(192, 0, 0), 24},     // protocols
    {v4(192, 0, 2), 24},     // documentation
    {v4(192, 88, 99), 24},   // relays to IPv6
    {v4(192, 168), 16},      // private
    {v4(198, 18), 15},       // measurements
    {v4(198, 51, 100), 24},  // documentation
    {v4(203, 0, 113), 24},   // documentation
    {v4(224, 0), 3},         // to many, reserved, to all
};

bool is_global4(uint32_t address) {
  for (const Block& block : kSpecial4) {
    if ((address ^ block.first) >> (32 - block.bits) == 0) return false;
  }
  return true;
}

// Global are those of 2000::/3, without the blocks there that are not. Mapped, translated, local ones lie elsewhere.
bool is_global6(const in6_addr& address) {
  const uint8_t* b = address.s6_addr;
  if (b[0] >> 5 != 1) return false;
  const uint32_t high = uint32_t{b[0]} << 24 | uint32_t{b[1]} << 16 | uint32_t{b[2]} << 8 | b[3];
  constexpr Block kSpecial6[] = {
      {0x20010000, 23},  // protocols: Teredo, ORCHID, measurements
      {0x20010db8, 32},  // documentation
      {0x20020000, 16},  // 6to4: an IPv4 address in disguise
      {0x3fff0000, 20},  // documentation
  };
  for (const Block& block : kSpecial6) {
    if ((high ^ block.first) >> (32 - block.bits) == 0) return false;
  }
  return true;
}

}  // namespace

bool is_global(const sockaddr& address) {
  if (address.sa_family == AF_INET) {
    sockaddr_in in;
    std::memcpy(&in, &address, sizeof in);
    return is_global4(ntohl(in.sin_addr.s_addr));
  }
  if (address.sa_family == AF_INET6) {
    sockaddr_in6 in;
    std::memcpy(&in, &address, sizeof in);
    return is_global6(in.sin6_addr);
  }
  return false;
}

}  // namespace idefics::fetch
