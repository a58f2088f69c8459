// "Did you mean": the known word that is nearest to an unknown one.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace idefics::cli {

// Letters to insert, delete, replace or swap with a neighbour to make `a` of `b`.
int edit_distance(std::string_view a, std::string_view b);

// The nearest of `known`, the first of several; empty when none comes close: at most one letter and a third
// of the word may differ.
std::string nearest(std::string_view word, std::span<const std::string> known);

}  // namespace idefics::cli
