// The errors in which requests end, whatever was thrown.
#pragma once

#include <exception>

#include "idefics/error.h"

namespace idefics {

// Made when the program starts: where there is no memory left, none can be had for saying so.
const Error& out_of_memory_error();
const Error& cancelled_error();

// The exception that is being handled.
Error current_error() noexcept;

}  // namespace idefics
