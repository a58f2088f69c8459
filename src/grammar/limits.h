// What a grammar from a request may cost. All limits end in Error{kSchemaInvalid}.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>

#include "idefics/error.h"

namespace idefics::grammar {

struct Limits {
  size_t text_bytes = size_t{1} << 20;  // of a schema, expression or grammar, and of all choices together
  size_t rules = 10'000;
  size_t states = 400'000;               // of all automata, before and after they are made deterministic
  size_t table_cells = size_t{8} << 20;  // of the final table: states x classes of bytes
  int nesting = 64;                      // of groups, schemas, references
  std::chrono::milliseconds build_time{1000};
};

// Counts what one compilation uses.
class Budget {
 public:
  explicit Budget(const Limits& limits) : limits_(limits), end_(std::chrono::steady_clock::now() + limits.build_time) {}
  const Limits& limits() const { return limits_; }
  // Takes `count` states; now and then looks at the clock.
  void take_states(size_t count);
  // Looks at the clock.
  void check_time() const;
  // Refuses nesting deeper than the limit; `where` names the place.
  void check_nesting(int depth, const std::string& where) const;

 private:
  Limits limits_;
  std::chrono::steady_clock::time_point end_;
  size_t states_ = 0;
  size_t since_look_ = 0;
};

[[noreturn]] void fail(const std::string& message);  // Error{kSchemaInvalid}

}  // namespace idefics::grammar
