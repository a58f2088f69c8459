// What a server and its decoding process say to each other, over a socket of whole messages (SOCK_SEQPACKET). The bytes
// of files and pixels lie in two pieces of shared memory.
#pragma once

#include <cstddef>
#include <cstdint>

#include "image/codec.h"

namespace idefics::decoder {

// Where the process finds what it was given. 0 to 2 are /dev/null.
inline constexpr int kSocketFd = 3, kInputFd = 4, kOutputFd = 5;

// The limits hold for every picture: the engine's own defaults.
inline constexpr ImageLimits kLimits = {};
inline constexpr size_t kInputBytes = kLimits.max_bytes;
inline constexpr size_t kOutputBytes = 3 * kLimits.max_pixels;

// The process's first message: which parts of the sandbox this kernel has.
struct Ready {
  uint32_t seccomp, landlock;
};

// The encoded file is the first `bytes` of the input.
struct Job {
  uint64_t bytes;
};

// The pixels are the first 3 * width * height bytes of the output. Nothing in it may be believed.
struct Reply {
  enum Status : uint32_t { kDecoded, kInvalid, kTooLarge };
  uint32_t status;
  int32_t width, height;
  uint32_t message_bytes;
  char message[496];  // of an error
};

}  // namespace idefics::decoder
