// The process that decodes pictures for a server.
#pragma once

#include <functional>
#include <span>

#include "image/codec.h"

namespace idefics::decoder {

// The argument of the program that means run_worker().
inline constexpr char kWorkerVerb[] = "decode-worker";

using Decode = std::function<Image(std::span<const std::byte>, const ImageLimits&)>;

// Enters the sandbox and answers jobs until the other side hangs up. The descriptors are those of protocol.h; a process
// that was not started by a DecoderPool has none and ends with 2. Returns what the process should exit with.
int run_worker(const Decode& decode = decode_image) noexcept;

}  // namespace idefics::decoder
