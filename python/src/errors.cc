#include <nanobind/stl/string.h>

#include <string>

#include "binding.h"
#include "idefics/error.h"

namespace idefics::python {

namespace {

PyObject* error_type = nullptr;     // idefics.Error
PyObject* too_long_type = nullptr;  // idefics.PromptTooLongError

PyObject* new_type(nb::module_& m, const char* name, PyObject* base, const char* doc) {
  PyObject* type = PyErr_NewExceptionWithDoc((std::string("idefics.") + name).c_str(), doc, base, nullptr);
  if (type == nullptr) throw nb::python_error();
  m.attr(name) = nb::borrow(type);
  return type;
}

}  // namespace

nb::object to_exception(const Error& error) {
  const nb::handle type(error.code() == ErrorCode::kContextLengthExceeded ? too_long_type : error_type);
  nb::object value = type(error.what());
  value.attr("code") = std::string(code_name(error.code()));
  return value;
}

void bind_errors(nb::module_& m) {
  error_type = new_type(m, "Error", PyExc_ValueError,
                        "What the outside world got wrong: one line that says what was wanted, what was found, where, "
                        "and what to do.\n\n`code` names the kind: \"invalid_value\", \"bad_model\", "
                        "\"image_invalid\", \"out_of_memory\", ...");
  too_long_type = new_type(m, "PromptTooLongError", error_type,
                           "The prompt does not fit the model's context; `code` is \"context_length_exceeded\".");
  nb::handle(error_type).attr("code") = "internal";
  nb::register_exception_translator([](const std::exception_ptr& thrown, void*) {
    try {
      std::rethrow_exception(thrown);
    } catch (const Error& error) {
      const nb::object value = to_exception(error);
      PyErr_SetObject(value.type().ptr(), value.ptr());
    }
  });
}

}  // namespace idefics::python
