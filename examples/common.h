// What the examples share: reading a file, and reporting an error.
#pragma once

#include <idefics/error.h>

#include <exception>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>

inline std::string read_picture(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw idefics::Error(idefics::ErrorCode::kIo, "cannot open " + path);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

// Runs the example; what the library throws becomes a line on stderr and the exit code of its kind.
template <typename Body>
int run_example(const char* name, const Body& body) {
  try {
    body();
    return 0;
  } catch (const idefics::Error& error) {
    std::cerr << name << ": " << error.what() << '\n';
    return idefics::exit_code(error.code());
  }
}
