#include "decoder/decoder_pool.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <thread>

#include "base/files.h"
#include "decoder/protocol.h"

namespace idefics::decoder {
namespace {

namespace fs = std::filesystem;

std::span<const std::byte> bytes_of(std::string_view text) { return std::as_bytes(std::span(text)); }

PoolOptions hostile() {
  PoolOptions options;
  options.command = {IDEFICS_TEST_WORKER};
  options.wall_ms = 20'000;
  return options;
}

std::string canary_file() {
  return read_file(fs::path(IDEFICS_SOURCE_DIR) / "models/tiny-cards/samples/06.png", 1 << 24);
}

// The error of a file; empty when it was decoded.
std::string error_of(DecoderPool& pool, const std::string& file, ErrorCode code = ErrorCode::kImageInvalid) {
  try {
    pool.decode(bytes_of(file));
    return "";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), code) << file.substr(0, 40) << ": " << e.what();
    return e.what();
  }
}

int open_descriptors() {
  return static_cast<int>(std::distance(fs::directory_iterator("/proc/self/fd"), fs::directory_iterator()));
}

// Processes whose parent is this one, dead ones included.
int children() {
  int count = 0;
  for (const auto& entry : fs::directory_iterator("/proc")) {
    std::ifstream status(entry.path() / "stat");
    std::string pid, name, state;
    int parent = 0;
    if (status >> pid >> name >> state >> parent) count += parent == ::getpid();
  }
  return count;
}

template <typename Condition>
bool soon(Condition condition) {
  for (int i = 0; i < 2000 && !condition(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  return condition();
}

void expect_same(const Image& a, const Image& b, const std::string& where) {
  EXPECT_EQ(a.width, b.width) << where;
  EXPECT_EQ(a.height, b.height) << where;
  EXPECT_TRUE(a.rgb == b.rgb) << where;
}

TEST(DecoderPool, gives_the_bytes_and_the_errors_of_decoding_in_place) {
  DecoderPool pool(hostile());
  int pictures = 0, refused = 0;
  for (const auto& entry : fs::recursive_directory_iterator(fs::path(IDEFICS_GOLDENS) / "images")) {
    if (!entry.is_regular_file()) continue;
    const std::string file = read_file(entry.path(), 1 << 24), name = entry.path().filename().string();
    try {
      const Image expected = decode_image(bytes_of(file));
      expect_same(pool.decode(bytes_of(file)), expected, name);
      ++pictures;
    } catch (const Error& e) {
      EXPECT_EQ(error_of(pool, file, e.code()), e.what()) << name;
      ++refused;
    }
  }
  EXPECT_GE(pictures, 50);
  EXPECT_GE(refused, 5);
  EXPECT_NE(error_of(pool, std::string(kInputBytes + 1, 'x'), ErrorCode::kImageTooLarge), "");
  EXPECT_NE(error_of(pool, ""), "");
}

TEST(DecoderPool, is_locked_up_by_all_that_this_kernel_has) {
  DecoderPool pool(hostile());
  EXPECT_TRUE(pool.sandbox().seccomp);
}

TEST(DecoderPool, a_process_that_misbehaves_costs_its_picture_and_nothing_else) {
  std::vector<std::string> deaths;
  PoolOptions options = hostile();
  DecoderPool pool(options, [&](const std::string& how) { deaths.push_back(how); });
  const std::string canary = canary_file();
  const Image expected = decode_image(bytes_of(canary));
  for (const std::string order : {"crash", "abort", "exit", "deep", "short"}) {
    deaths.clear();
    EXPECT_NE(error_of(pool, "order:" + order).find("failed or took too long"), std::string::npos) << order;
    ASSERT_EQ(deaths.size(), 1u) << order;
    expect_same(pool.decode(bytes_of(canary)), expected, order);
  }
}

TEST(DecoderPool, a_process_that_was_taken_over_reaches_nothing) {
  DecoderPool pool(hostile());
  ASSERT_TRUE(pool.sandbox().seccomp);
  for (const std::string order : {"open", "write", "proc", "socket", "connect", "fork", "exec", "kill", "tgkill",
                                  "ptrace", "code", "limits", "shrink", "unlink", "stat"})
    EXPECT_EQ(error_of(pool, "order:" + order), "image: refused, errno 1") << order;
}

TEST(DecoderPool, a_process_that_hangs_is_ended) {
  const std::string canary = canary_file();
  PoolOptions options = hostile();
  options.wall_ms = 300;
  std::vector<std::string> deaths;
  DecoderPool pool(options, [&](const std::string& how) { deaths.push_back(how); });
  for (const std::string order : {"spin", "sleep"}) {
    const auto start = std::chrono::steady_clock::now();
    EXPECT_NE(error_of(pool, "order:" + order), "");
    const auto time = std::chrono::steady_clock::now() - start;
    EXPECT_GE(time, std::chrono::milliseconds(300)) << order;
    EXPECT_LT(time, std::chrono::seconds(10)) << order;
    EXPECT_NO_THROW(pool.decode(bytes_of(canary)));
  }
  EXPECT_EQ(deaths, (std::vector<std::string>{"its time was over", "its time was over"}));
}

TEST(DecoderPool, a_process_that_computes_for_too_long_ends_itself) {
  std::vector<std::string> deaths;
  PoolOptions options = hostile();
  options.cpu_seconds = 0;    // the granularity of the kernel is a second
  options.wall_ms = 200'000;  // a second of CPU time takes long on a busy machine
  DecoderPool pool(options, [&](const std::string& how) { deaths.push_back(how); });
  EXPECT_NE(error_of(pool, "order:spin"), "");
  EXPECT_EQ(deaths, std::vector<std::string>{"signal 24"}) << "SIGXCPU";
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // they take terabytes, so there is no limit
TEST(DecoderPool, a_process_that_grabs_memory_gets_only_so_much) {
  DecoderPool pool(hostile());
  const std::string canary = canary_file();
  EXPECT_NE(error_of(pool, "order:memory", ErrorCode::kImageTooLarge).find("too much memory"), std::string::npos);
  EXPECT_NO_THROW(pool.decode(bytes_of(canary)));
}
#endif

TEST(DecoderPool, believes_nothing_that_comes_back) {
  std::vector<std::string> deaths;
  DecoderPool pool(hostile(), [&](const std::string& how) { deaths.push_back(how); });
  const std::string canary = canary_file();
  const Image expected = decode_image(bytes_of(canary));
  for (const std::string order : {"huge", "negative", "empty", "status", "message"}) {
    deaths.clear();
    EXPECT_NE(error_of(pool, "order:" + order), "") << order;
    EXPECT_EQ(deaths, std::vector<std::string>{"an answer that is none"}) << order;
    expect_same(pool.decode(bytes_of(canary)), expected, order);
  }
  const std::string text = error_of(pool, "order:text");
  EXPECT_EQ(text.find('\n'), std::string::npos);
  EXPECT_TRUE(text.starts_with("image: ??")) << text;
  EXPECT_LE(text.size(), 600u);
  expect_same(pool.decode(bytes_of(canary)), expected, "text");
}

// IDEFICS_DEATHS=1000 for a long run.
TEST(DecoderPool, many_deaths_leave_nothing_behind) {
  const char* wanted = std::getenv("IDEFICS_DEATHS");
  const int deaths = wanted ? std::atoi(wanted) : 40;
  const std::string canary = canary_file();
  const Image expected = decode_image(bytes_of(canary));
  const int descriptors = open_descriptors(), processes = children();
  {
    std::atomic<int> died = 0;
    DecoderPool pool(hostile(), [&](const std::string&) { ++died; });
    const std::vector<std::string> orders = {"crash", "abort", "exit", "short"};
    std::vector<std::thread> threads;
    for (int t = 0; t < 2; ++t) {
      threads.emplace_back([&, t] {
        for (int i = t; i < deaths; i += 2) {
          EXPECT_NE(error_of(pool, "order:" + orders[static_cast<size_t>(i) % orders.size()]), "");
          expect_same(pool.decode(bytes_of(canary)), expected, std::to_string(i));
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(died, deaths);
    EXPECT_LE(children(), processes + 3);
  }
  EXPECT_EQ(open_descriptors(), descriptors);
  EXPECT_EQ(children(), processes);
}

// Kills the processes of the pool and waits until they are dead. The pool may meanwhile start others.
void kill_children() {
  for (const auto& entry : fs::directory_iterator("/proc")) {
    const auto is_alive = [&entry] {
      std::ifstream status(entry.path() / "stat");
      int pid = 0, parent = 0;
      std::string name, state;
      return status >> pid >> name >> state >> parent && parent == ::getpid() && state != "Z" ? pid : 0;
    };
    const int pid = is_alive();
    if (pid == 0) continue;
    ::kill(pid, SIGKILL);
    while (is_alive() == pid) std::this_thread::yield();
  }
}

// The second process of a pool may be idle when it is killed, or about to start, or not there yet.
TEST(DecoderPool, one_that_was_killed_while_it_had_no_picture_is_replaced_unseen) {
  int deaths = 0;
  const std::string canary = canary_file();
  for (int round = 0; round < 20; ++round) {
    DecoderPool pool(hostile(), [&](const std::string&) { ++deaths; });
    std::this_thread::sleep_for(std::chrono::microseconds(250 * round));
    kill_children();
    EXPECT_NO_THROW(pool.decode(bytes_of(canary))) << round;
  }
  EXPECT_EQ(deaths, 0);
}

TEST(DecoderPool, when_none_can_be_started_it_is_said_and_tried_again) {
  const fs::path program = fs::temp_directory_path() / ("idefics-test-worker-" + std::to_string(::getpid()));
  fs::copy_file(IDEFICS_TEST_WORKER, program, fs::copy_options::overwrite_existing);
  PoolOptions options = hostile();
  options.command = {program.string()};
  std::vector<std::string> troubles;
  DecoderPool pool(options, [&](const std::string& how) { troubles.push_back(how); });
  fs::remove(program);
  const std::string canary = canary_file();
  // One, and a spare one if it was started in time.
  const auto crashes = [&] {
    try {
      pool.decode(bytes_of("order:crash"));
    } catch (const Error& e) {
      return e.code() == ErrorCode::kImageInvalid;
    }
    return false;
  };
  size_t dead = 0;
  while (dead < 3 && crashes()) ++dead;
  EXPECT_GE(dead, 1u);
  EXPECT_LE(dead, 2u);
  troubles.clear();
  for (int i = 0; i < 3; ++i) EXPECT_NE(error_of(pool, canary, ErrorCode::kOutOfMemory), "");
  EXPECT_EQ(troubles.size(), 3u);
  fs::copy_file(IDEFICS_TEST_WORKER, program);
  EXPECT_NO_THROW(pool.decode(bytes_of(canary)));
  fs::remove(program);
}

TEST(DecoderPool, a_program_that_cannot_be_started_is_said_at_once) {
  PoolOptions options;
  options.command = {"/nowhere/idefics"};
  EXPECT_THROW(DecoderPool{options}, Error);
  options.command = {"/bin/false"};
  EXPECT_THROW(DecoderPool{options}, Error);
}

TEST(DecoderPool, knows_nothing_of_the_environment) {
  ::setenv("IDEFICS_API_KEY", "planted-secret", 1);
  DecoderPool pool(hostile());
  EXPECT_TRUE(soon([] { return children() == 2; }));
  int seen = 0;
  for (const auto& entry : fs::directory_iterator("/proc")) {
    std::ifstream status(entry.path() / "stat");
    int pid = 0, parent = 0;
    std::string name, state;
    if (!(status >> pid >> name >> state >> parent) || parent != ::getpid()) continue;
    ++seen;
    std::ifstream file(entry.path() / "environ");
    const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    EXPECT_EQ(text.find("planted-secret"), std::string::npos);
    // 0, 1, 2 and the socket, once it has taken the rest into use.
    std::error_code error;  // only root may look at a process that is not dumpable
    const auto descriptors = [&] {
      return std::distance(fs::directory_iterator(entry.path() / "fd", error), fs::directory_iterator());
    };
    EXPECT_TRUE(soon([&] { return descriptors() == 4 || error; })) << descriptors();
  }
  EXPECT_EQ(seen, 2);
  ::unsetenv("IDEFICS_API_KEY");
}

}  // namespace
}  // namespace idefics::decoder
