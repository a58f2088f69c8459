// Tokens -> tree.
#pragma once

#include <string_view>

#include "text/jinja/ast.h"

namespace idefics::jinja {

constexpr size_t kMaxSourceBytes = 256u << 10;  // ten times the largest public chat template
constexpr int kMaxSyntaxDepth = 64;             // of blocks, brackets, prefix operators and conditional expressions

// The statements of a template, checked as Jinja's compiler checks them (analysis.h). `where` names the template in
// errors. Errors: kBadModel, with the line.
Body parse(std::string_view source, std::string_view where);

}  // namespace idefics::jinja
