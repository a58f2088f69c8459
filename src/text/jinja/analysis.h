// What Jinja's compiler finds out about a template before it runs.
#pragma once

#include <string_view>

#include "text/jinja/ast.h"

namespace idefics::jinja {

// Fills in Body::unset and Routine::uses_*. Refuses what Jinja refuses when compiling: unknown filters and tests
// (except inside `if` and conditional expressions, where they fail when reached), break and continue outside of loops,
// setting `loop` inside a loop. Errors: kBadModel, with the line.
void analyse(Body& root, std::string_view where);

}  // namespace idefics::jinja
