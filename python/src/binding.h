// The parts of the module.
#pragma once

#include <nanobind/nanobind.h>

#include <vector>

#include "idefics/error.h"
#include "idefics/processor.h"

namespace idefics::python {

namespace nb = nanobind;

void bind_errors(nb::module_& m);
void bind_config(nb::module_& m);
void bind_messages(nb::module_& m);
void bind_model(nb::module_& m);
void bind_engine(nb::module_& m);

// The Error as an object of Python's class, not raised.
nb::object to_exception(const Error& error);

// Messages as objects of Message or as dictionaries {"role": ..., "content": text or [parts]}, where a part is
// {"type": "text", "text": ...} or {"type": "image", "image": bytes or path}.
std::vector<Message> to_messages(nb::handle messages);
// The bytes of an encoded picture: bytes, or the path of a file.
std::string to_picture(nb::handle picture);

}  // namespace idefics::python
