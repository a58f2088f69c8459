// How a measurement is written.
#pragma once

#include <string>

#include "base/json.h"
#include "measurement/measurement.h"

namespace idefics::cli {

// What was measured, in words of the command line.
struct BenchTitle {
  std::string model;    // as it was named
  std::string picture;  // a file's name; empty: the made one
};

// Everything; what is not known is null. docs: bench/README.md.
json::object bench_json(const BenchTitle& title, const Measurement& measurement);
// Tables for people; what is not known is "-".
std::string bench_text(const BenchTitle& title, const Measurement& measurement);

}  // namespace idefics::cli
