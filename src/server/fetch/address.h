// Which addresses a server may connect to for a stranger.
#pragma once

#include <sys/socket.h>

namespace idefics::fetch {

// Whether an address of the internet at large: not of this machine or its networks, not special in any way, and none
// that stands for another one (::ffff:10.0.0.1, 64:ff9b::a00:1, 2002:a00:1::). IANA's special-purpose registries, 2025.
bool is_global(const sockaddr& address);

}  // namespace idefics::fetch
