// The program `idefics`.
#pragma once

namespace idefics::cli {

// Parses the command line, runs its verb, reports errors as one line. Returns the exit code (idefics::exit_code). Never
// throws.
int run_program(int argc, const char* const* argv) noexcept;

}  // namespace idefics::cli
