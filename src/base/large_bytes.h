// Bytes of a picture: much memory that is written once, soon after it was allocated.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace idefics {

// `count` zeros, whose pages are all fetched from the system in one call: fetching each when it is first touched took
// longer than decoding a JPEG into them. Huge pages are no better: they are taken from just the memory that a
// hypervisor has reclaimed, and then take ten times as long.
std::vector<uint8_t> large_bytes(size_t count);

}  // namespace idefics
