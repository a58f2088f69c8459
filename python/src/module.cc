#include "binding.h"

NB_MODULE(_idefics, m) {
  m.doc() = "The compiled part of idefics.";
  idefics::python::bind_errors(m);
  idefics::python::bind_config(m);
  idefics::python::bind_messages(m);
  idefics::python::bind_engine(m);
  idefics::python::bind_model(m);
}
