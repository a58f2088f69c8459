// When the requests of an open loop begin.
#pragma once

#include <cstdint>

namespace idefics::load {

class Arrivals {
 public:
  // `rate` requests a second, at even distances or, as independent clients come, at exponential ones (Poisson). The
  // same seed gives the same times on every machine.
  Arrivals(double rate, bool even, uint64_t seed) : rate_(rate), even_(even), state_(seed) {}

  // Seconds from the start to the next request, never less than the time before. The first one begins at 0.
  double next();

 private:
  double uniform();  // in (0, 1]

  double rate_;
  bool even_;
  uint64_t state_, count_ = 0;
  double time_ = 0;
};

}  // namespace idefics::load
