// The most memory that this process has had.
#pragma once

#include <cstdint>

namespace idefics {

// Peak of the resident memory, bytes.
int64_t peak_rss_bytes();
// Begins anew with what is resident now. False where the system does not offer that.
bool restart_peak_rss();

}  // namespace idefics
