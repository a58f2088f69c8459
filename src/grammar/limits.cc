#include "grammar/limits.h"

#include <fmt/format.h>

namespace idefics::grammar {

void fail(const std::string& message) { throw Error(ErrorCode::kSchemaInvalid, message); }

void Budget::take_states(size_t count) {
  if (count > limits_.states - states_) {
    fail(fmt::format("grammar: needs more than {} states; use fewer alternatives or smaller repetition counts",
                     limits_.states));
  }
  states_ += count;
  since_look_ += count;
  if (since_look_ >= 1024) check_time();
  since_look_ %= 1024;
}

void Budget::check_time() const {
  if (std::chrono::steady_clock::now() > end_) {
    fail(fmt::format("grammar: takes more than {} ms to prepare; make it simpler", limits_.build_time.count()));
  }
}

void Budget::check_nesting(int depth, const std::string& where) const {
  if (depth > limits_.nesting) fail(fmt::format("{}: is nested more than {} levels deep", where, limits_.nesting));
}

}  // namespace idefics::grammar
