#include "base/files.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <sstream>

namespace idefics {
namespace {

namespace fs = std::filesystem;

class Files : public testing::Test {
 protected:
  Files() : folder_(fs::temp_directory_path() / ("idefics_files_" + std::to_string(::getpid()))) {
    fs::create_directories(folder_);
  }
  ~Files() override { fs::remove_all(folder_); }
  fs::path folder_;
};

TEST_F(Files, what_is_written_is_read_back) {
  const std::string bytes("a\0b", 3);
  write_file(folder_ / "x", bytes);
  EXPECT_EQ(read_file(folder_ / "x", 3), bytes);
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_), fs::directory_iterator()), 1) << "a temporary file was left";
}

TEST_F(Files, a_file_above_the_limit_is_refused) {
  write_file(folder_ / "x", "abcd");
  EXPECT_THROW(read_file(folder_ / "x", 3), Error);
}

TEST_F(Files, a_missing_file_is_nothing_or_an_error) {
  EXPECT_FALSE(find_file(folder_ / "none", 10));
  EXPECT_THROW(read_file(folder_ / "none", 10), Error);
}

TEST_F(Files, devices_folders_and_pipes_are_refused) {
  ASSERT_EQ(::mkfifo((folder_ / "pipe").c_str(), 0600), 0);
  for (const fs::path& path : {fs::path("/dev/zero"), folder_, folder_ / "pipe"}) {
    EXPECT_THROW(read_file(path, 100), Error) << path;
    EXPECT_THROW(MappedFile{path}, Error) << path;
  }
}

TEST_F(Files, a_map_shows_the_bytes_and_an_empty_file_maps_to_nothing) {
  write_file(folder_ / "x", "abc");
  write_file(folder_ / "empty", "");
  const MappedFile map(folder_ / "x");
  EXPECT_EQ(map.bytes().size(), 3u);
  EXPECT_EQ(static_cast<char>(map.bytes()[2]), 'c');
  EXPECT_TRUE(MappedFile(folder_ / "empty").bytes().empty());
}

std::string read_stream(const char* path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

TEST_F(Files, a_map_for_which_there_is_no_address_space_is_out_of_memory) {
  write_file(folder_ / "x", "");
  fs::resize_file(folder_ / "x", uint64_t{1} << 36);  // no byte of which is on the disk
  rlim_t used = 0;                                    // pages
  std::ifstream("/proc/self/statm") >> used;
  rlimit before{};
  getrlimit(RLIMIT_AS, &before);
  const rlimit tight{used * static_cast<rlim_t>(::getpagesize()) + (rlim_t{1} << 30), before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_AS, &tight), 0);
  try {
    const MappedFile map(folder_ / "x", ErrorCode::kBadModel);
    ADD_FAILURE() << "it was mapped";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kOutOfMemory);
    EXPECT_NE(std::string_view(error.what()).find("cannot map"), std::string_view::npos);
  }
  setrlimit(RLIMIT_AS, &before);
}

// Pages of this process that a map of `path` occupies, in kB.
long resident(const fs::path& path) {
  std::istringstream lines(read_stream("/proc/self/smaps"));
  bool inside = false;
  for (std::string line; std::getline(lines, line);) {
    if (line.find(path.string()) != std::string::npos) inside = true;
    if (inside && line.starts_with("Rss:")) return std::stol(line.substr(4));
  }
  return -1;
}

TEST_F(Files, a_released_part_of_a_map_takes_no_memory_and_reads_the_same) {
  std::string bytes(1 << 20, 0);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i * 7 >> 3);
  write_file(folder_ / "x", bytes);
  const MappedFile map(folder_ / "x");
  const auto text = [&] {
    return std::string_view(reinterpret_cast<const char*>(map.bytes().data()), map.bytes().size());
  };
  map.fetch(map.bytes().subspan(5, 500'000));
  EXPECT_EQ(text(), bytes);
  EXPECT_EQ(resident(folder_ / "x"), 1024);
  map.release(map.bytes().subspan(5, 500'000));
  EXPECT_LE(resident(folder_ / "x"), 1024 - 488);
  EXPECT_EQ(text(), bytes);
  map.release(map.bytes());
  EXPECT_EQ(resident(folder_ / "x"), 0);
  map.fetch({});
  map.release({});
  EXPECT_EQ(text(), bytes);
}

}  // namespace
}  // namespace idefics
