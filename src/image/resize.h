// Resampling of 8-bit RGB pictures, bit-equal to Pillow 13.
#pragma once

#include "idefics/processor_config.h"
#include "image/image.h"
#include "image/row_chain.h"

namespace idefics {

// The picture at width x height (both at least 1), aspect ratio ignored. A copy when the size is the same.
//
// Method (Pillow's, all filters but kNearest): one pass per axis that changes, each from uint8 to uint8 with weights in
// 22-bit fixed point. The vertical pass comes first when the height shrinks, and by more than twice what the width
// shrinks; otherwise the horizontal one.
// Cost: about 6 weights per value and pass when enlarging (kLanczos), 6 * shrink factor when shrinking.
// Threads: uses those of `pool`, if there is one, which do not change the result. Errors: none; a size below 1 is a
// bug.
Image resize(const Image& image, int width, int height, Resample filter, ThreadPool* pool = nullptr);
// The passes of such a resize, behind those that are there.
void add_resize(RowPasses& passes, int in_width, int in_height, int width, int height, Resample filter);

}  // namespace idefics
