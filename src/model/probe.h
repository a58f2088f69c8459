// A look inside a forward pass, for tests and diagnosis.
#pragma once

#include <functional>
#include <string_view>

#include "tensor/view.h"

namespace idefics {

// Called with the name of a stage ("vision.layer.3", "text.norm", ...) and its values, which are valid during the call.
// An empty probe costs nothing.
using Probe = std::function<void(std::string_view stage, Matrix<const float> values)>;

}  // namespace idefics
