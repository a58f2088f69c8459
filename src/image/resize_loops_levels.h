// What the files of resize_loops.h define, each compiled with the flags of its instructions.
#pragma once

#include "image/resize_loops.h"

namespace idefics {

extern const ResizeLoops kResizeSse2, kResizeAvx2, kResizeAvx512;

}  // namespace idefics
