// The one exception type of the library.
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>

namespace idefics {

// What kind of thing went wrong. Each code has one name (`code_name`) and one exit code of the command line
// (`exit_code`).
enum class ErrorCode {
  kInternal,               // a fault of this software
  kUsage,                  // a wrong command line or a wrong call
  kInvalidValue,           // a parameter of a request is out of its range
  kPromptEmpty,            // nothing to answer
  kContextLengthExceeded,  // the prompt does not fit the model's context
  kImageInvalid,           // not an image, damaged, or of a kind that is not supported
  kImageTooLarge,          // more bytes, pixels or side length than allowed
  kTooManyImages,          // more images or image tokens than allowed, or placeholders and images do not match
  kTemplateError,          // the chat template refused the messages or ran over its budget
  kSchemaInvalid,          // a JSON schema, regular expression or grammar for the output is wrong or not supported
  kBadModel,               // a file of the model folder is missing, damaged or contradictory
  kIo,                     // a file could not be opened, read or written
  kOutOfMemory,            // the memory budget does not allow it
  kNumeric,                // NaN or Inf came out of the model
  kOverloaded,             // too many requests wait already
  kCancelled,              // the caller asked to stop
};

// The code as it stands in machine-readable errors, e.g. "image_invalid".
std::string_view code_name(ErrorCode code);
// The exit code of the command line: 1 internal, numeric, out of memory and overloaded, 2 usage and bad requests, 4 bad
// model, 5 files, 130 cancelled.
int exit_code(ErrorCode code);

// Says in one line what was wanted, what was found, where, and what to do. Thrown for everything that the outside world
// can cause; never for our own bugs.
class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  ErrorCode code() const { return code_; }
  // The same error with "context: " before its message: a level that knows where it was adds that.
  Error with_context(std::string_view context) const;

 private:
  ErrorCode code_;
};

}  // namespace idefics
