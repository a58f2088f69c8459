// A stretch of a text.
#pragma once

#include <cstddef>

namespace idefics {

struct TextRange {
  size_t begin = 0, end = 0;  // bytes, half open
};

}  // namespace idefics
