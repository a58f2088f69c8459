#include "idefics/error.h"

namespace idefics {

std::string_view code_name(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInternal: return "internal";
    case ErrorCode::kUsage: return "usage";
    case ErrorCode::kInvalidValue: return "invalid_value";
    case ErrorCode::kPromptEmpty: return "prompt_empty";
    case ErrorCode::kContextLengthExceeded: return "context_length_exceeded";
    case ErrorCode::kImageInvalid: return "image_invalid";
    case ErrorCode::kImageTooLarge: return "image_too_large";
    case ErrorCode::kTooManyImages: return "too_many_images";
    case ErrorCode::kTemplateError: return "template_error";
    case ErrorCode::kSchemaInvalid: return "schema_invalid";
    case ErrorCode::kBadModel: return "bad_model";
    case ErrorCode::kIo: return "io";
    case ErrorCode::kOutOfMemory: return "out_of_memory";
    case ErrorCode::kNumeric: return "model_numeric_error";
    case ErrorCode::kOverloaded: return "overloaded";
    case ErrorCode::kCancelled: return "cancelled";
  }
  return "internal";
}

int exit_code(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInternal:
    case ErrorCode::kNumeric:
    case ErrorCode::kOverloaded:
    case ErrorCode::kOutOfMemory: return 1;
    case ErrorCode::kBadModel: return 4;
    case ErrorCode::kIo: return 5;
    case ErrorCode::kCancelled: return 130;
    default: return 2;
  }
}

Error Error::with_context(std::string_view context) const { return Error(code_, std::string(context) + ": " + what()); }

}  // namespace idefics
