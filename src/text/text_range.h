// A stretch of a text.
#pragma once

#include <cstddef>

namespace idefics {

struct TextRange {
  size_t begin, end;  // bytes, half open
};

}  // namespace idefics
