// A picture for measurements, where none is at hand.
#pragma once

#include <string>

namespace idefics {

// An encoded PNG. No two parts of it are alike, so that no tile is found in a cache; it compresses about as well as a
// screen shot, and the same size gives the same bytes.
std::string make_test_picture(int width, int height);

}  // namespace idefics
