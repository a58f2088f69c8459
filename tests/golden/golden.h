// Golden tests: cases recorded from the reference implementation. Each family counts its cases, so that a test that reads
// no case fails, and the counts can be written to docs/conformance.md.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include "base/files.h"
#include "base/json.h"

namespace idefics::golden {

inline std::filesystem::path data(const std::string& name) { return std::filesystem::path(IDEFICS_GOLDENS) / name; }

// The objects of a .jsonl file, one a line.
inline std::vector<json::value> read_lines(const std::string& name) {
  const std::string text = read_file(data(name), uint64_t{1} << 28);
  std::vector<json::value> rows;
  for (size_t start = 0; start < text.size();) {
    const size_t end = std::min(text.find('\n', start), text.size());
    if (end > start) rows.push_back(parse_json(std::string_view(text).substr(start, end - start), name));
    start = end + 1;
  }
  return rows;
}

// Counts the cases of a family and reports them at its end. With IDEFICS_CONFORMANCE set to a file, the line
// "family<TAB>level<TAB>cases<TAB>passed" is appended there (tools/conformance reads it).
class Family {
 public:
  explicit Family(std::string name) : name_(std::move(name)) {}
  Family(const Family&) = delete;
  Family& operator=(const Family&) = delete;
  ~Family() {
    EXPECT_GT(cases_, 0) << name_ << ": no case was read";
    if (const char* file = std::getenv("IDEFICS_CONFORMANCE")) {
      const char* level = std::getenv("IDEFICS_KERNELS");
      std::ofstream(file, std::ios::app) << name_ << '\t' << (level ? level : "-") << '\t' << cases_ << '\t' << passed_ << '\n';
    }
  }
  // One case; the message of a failure says what was wanted and what came.
  void check(bool good, const std::string& message) {
    ++cases_;
    passed_ += good;
    if (!good && ++shown_ <= 10) ADD_FAILURE() << name_ << ": " << message;
    if (!good && shown_ > 10) failed_quietly_ = true;
    if (failed_quietly_) testing::Test::RecordProperty("more_failures", shown_ - 10);
  }

 private:
  std::string name_;
  int cases_ = 0, passed_ = 0, shown_ = 0;
  bool failed_quietly_ = false;
};

}  // namespace idefics::golden
