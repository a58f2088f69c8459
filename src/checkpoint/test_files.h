// For the tests of this room: temporary folders, and safetensors files made by hand.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "checkpoint/safetensors.h"
#include "idefics/error.h"

namespace idefics::test_files {

// The message of the Error that `f` throws, which must be one line; empty when it throws none.
template <typename F>
std::string error_of(F&& f) {
  try {
    f();
  } catch (const Error& e) {
    const std::string message = e.what();
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
    EXPECT_LT(message.size(), 1000u) << message;
    return message;
  }
  return "";
}

class TempFolder {
 public:
  TempFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "idefics-checkpoint-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("mkdtemp");
    path_ = name;
  }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;
  ~TempFolder() { std::filesystem::remove_all(path_); }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

inline void write(const std::filesystem::path& path, std::string_view bytes) {
  std::filesystem::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

inline std::string read(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(in), {});
}

// A tensor to be written.
struct Stored {
  std::string name;
  std::string dtype;
  std::vector<int64_t> shape;
  std::string bytes;
};

inline std::string with_length(std::string_view header, std::string_view data) {
  std::string file;
  for (int i = 0; i < 8; ++i) file.push_back(static_cast<char>(header.size() >> (8 * i)));
  return file.append(header).append(data);
}

inline std::string safetensors(const std::vector<Stored>& tensors) {
  json::object header;
  std::string data;
  for (const Stored& t : tensors) {
    const size_t begin = data.size();
    data += t.bytes;
    header[t.name] = json::object{{"dtype", t.dtype},
                                  {"shape", json::array(t.shape.begin(), t.shape.end())},
                                  {"data_offsets", json::array{begin, data.size()}}};
  }
  return with_length(json::serialize(header), data);
}

// All tensors of a file, to be changed and written again.
inline std::vector<Stored> stored_in(const std::filesystem::path& path) {
  const Safetensors file(path);
  std::vector<Stored> tensors;
  for (const TensorInfo& t : file.tensors()) {
    tensors.push_back({t.name, std::string(stored_dtype_name(t.dtype)), t.shape,
                       std::string(reinterpret_cast<const char*>(t.bytes.data()), t.bytes.size())});
  }
  return tensors;
}

}  // namespace idefics::test_files
