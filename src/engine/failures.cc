#include "engine/failures.h"

#include <new>

namespace idefics {

namespace {

// Copies of an Error share its text.
const Error kOutOfMemory(ErrorCode::kOutOfMemory, "engine: out of memory; try again later, or with smaller pictures");
const Error kCancelled(ErrorCode::kCancelled, "the request was cancelled");

}  // namespace

const Error& out_of_memory_error() { return kOutOfMemory; }
const Error& cancelled_error() { return kCancelled; }

Error current_error() noexcept {
  try {
    throw;
  } catch (const Error& e) {
    return e;
  } catch (const std::bad_alloc&) {
    return kOutOfMemory;
  } catch (const std::exception& e) {
    try {
      return Error(ErrorCode::kInternal, std::string("engine: ") + e.what());
    } catch (const std::bad_alloc&) {
      return kOutOfMemory;
    }
  }
}

}  // namespace idefics
