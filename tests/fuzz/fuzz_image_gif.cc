#include "fuzz_image.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return idefics::fuzz_image(idefics::kGif, data, size);
}
