#include "load/arrivals.h"

#include <cmath>

namespace idefics::load {

double Arrivals::next() {
  const uint64_t before = count_++;
  if (even_) return static_cast<double>(before) / rate_;
  if (before > 0) time_ -= std::log(uniform()) / rate_;
  return time_;
}

// SplitMix64: the distributions of the standard library differ between its implementations.
double Arrivals::uniform() {
  state_ += 0x9E3779B97F4A7C15U;
  uint64_t z = state_;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9U;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBU;
  z ^= z >> 31;
  return static_cast<double>((z >> 11) + 1) * 0x1p-53;
}

}  // namespace idefics::load
