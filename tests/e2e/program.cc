#include "program.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>

extern char** environ;

namespace idefics::e2e {

namespace {

constexpr std::chrono::seconds kLimit{120};

struct Pipe {
  Pipe() { EXPECT_EQ(::pipe2(ends, O_CLOEXEC), 0); }
  Pipe(const Pipe&) = delete;
  Pipe& operator=(const Pipe&) = delete;
  ~Pipe() {
    close_end(0);
    close_end(1);
  }
  void close_end(int i) {
    if (ends[i] >= 0) ::close(ends[i]);
    ends[i] = -1;
  }
  int ends[2] = {-1, -1};
};

std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> out;
  for (std::string& text : texts) out.push_back(text.data());
  out.push_back(nullptr);
  return out;
}

std::vector<std::string> environment_of(const Setting& setting) {
  std::vector<std::string> out;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string name = std::string(*entry).substr(0, std::string(*entry).find('='));
    if (!setting.environment.contains(name)) out.emplace_back(*entry);
  }
  for (const auto& [name, value] : setting.environment) out.push_back(name + "=" + value);
  return out;
}

pid_t spawn(std::vector<std::string> argv, const Setting& setting, const Pipe& in, const Pipe& out, const Pipe& err) {
  std::vector<std::string> environment = environment_of(setting);
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_adddup2(&actions, in.ends[0], STDIN_FILENO);
  ::posix_spawn_file_actions_adddup2(&actions, out.ends[1], STDOUT_FILENO);
  ::posix_spawn_file_actions_adddup2(&actions, err.ends[1], STDERR_FILENO);
  if (!setting.folder.empty()) ::posix_spawn_file_actions_addchdir_np(&actions, setting.folder.c_str());
  pid_t pid = -1;
  const int error = ::posix_spawnp(&pid, argv.front().c_str(), &actions, nullptr, pointers(argv).data(),
                                   pointers(environment).data());
  EXPECT_EQ(error, 0) << argv.front();
  ::posix_spawn_file_actions_destroy(&actions);
  return pid;
}

// Reads what is there; false at the end.
bool drain(int fd, std::string& text) {
  char block[1 << 16];
  const ssize_t n = ::read(fd, block, sizeof block);
  if (n <= 0) return false;
  text.append(block, static_cast<size_t>(n));
  return true;
}

// Feeds and reads until both outputs are closed.
void converse(pid_t pid, const Setting& setting, Pipe& in, Pipe& out, Pipe& err, Outcome& outcome) {
  const auto end = std::chrono::steady_clock::now() + kLimit;
  std::string_view input = setting.input;
  bool interrupted = setting.interrupt_after.empty();
  ::fcntl(in.ends[1], F_SETFL, O_NONBLOCK);
  while (out.ends[0] >= 0 || err.ends[0] >= 0) {
    if (input.empty()) in.close_end(1);
    pollfd fds[] = {{out.ends[0], POLLIN, 0}, {err.ends[0], POLLIN, 0}, {in.ends[1], POLLOUT, 0}};
    ::poll(fds, 3, 1000);
    if (fds[0].revents != 0 && !drain(out.ends[0], outcome.out)) out.close_end(0);
    if (fds[1].revents != 0 && !drain(err.ends[0], outcome.err)) err.close_end(0);
    if (fds[2].revents != 0) {
      const ssize_t n = ::write(in.ends[1], input.data(), input.size());
      if (n > 0) input.remove_prefix(static_cast<size_t>(n));
      if (n < 0) input = {};  // it does not read any more
    }
    if (!interrupted && outcome.out.find(setting.interrupt_after) != std::string::npos) {
      ::kill(pid, SIGINT);
      interrupted = true;
    }
    if (std::chrono::steady_clock::now() > end) ::kill(pid, SIGKILL);
  }
}

Outcome run_program(std::vector<std::string> argv, const Setting& setting) {
  ::signal(SIGPIPE, SIG_IGN);
  Pipe in, out, err;
  Outcome outcome;
  // A small pipe, so that the program cannot run far ahead of the one who wants to interrupt it.
  if (!setting.interrupt_after.empty()) ::fcntl(out.ends[1], F_SETPIPE_SZ, 4096);
  const pid_t pid = spawn(std::move(argv), setting, in, out, err);
  in.close_end(0);
  out.close_end(1);
  err.close_end(1);
  converse(pid, setting, in, out, err, outcome);
  int status = 0;
  ::waitpid(pid, &status, 0);
  if (WIFEXITED(status)) outcome.exit_code = WEXITSTATUS(status);
  return outcome;
}

}  // namespace

Outcome run(const std::vector<std::string>& arguments, const Setting& setting) {
  std::vector<std::string> argv = {IDEFICS_PROGRAM};
  argv.insert(argv.end(), arguments.begin(), arguments.end());
  return run_program(std::move(argv), setting);
}

Outcome run_command(const std::string& line) { return run_program({"bash", "-c", line}, {}); }
Outcome run_in_shell(const std::string& words) { return run_command(std::string(IDEFICS_PROGRAM) + " " + words); }

json::value parse_output(const Outcome& outcome) {
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  try {
    return parse_json(outcome.out, "output");
  } catch (const Error& e) {
    ADD_FAILURE() << e.what() << "\n" << outcome.out;
    return json::object();
  }
}

ScratchFolder::ScratchFolder() {
  std::string name = (std::filesystem::temp_directory_path() / "idefics-e2e-XXXXXX").string();
  EXPECT_NE(::mkdtemp(name.data()), nullptr);
  path_ = name;
}

ScratchFolder::~ScratchFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::filesystem::path ScratchFolder::write(const std::string& name, std::string_view bytes) const {
  write_file(path_ / name, bytes);
  return path_ / name;
}

std::filesystem::path ScratchFolder::copy_model(const std::filesystem::path& model, const std::string& name) const {
  std::filesystem::create_directory(path_ / name);
  for (const auto& entry : std::filesystem::directory_iterator(model)) {
    if (entry.is_regular_file()) std::filesystem::copy_file(entry.path(), path_ / name / entry.path().filename());
  }
  return path_ / name;
}

std::vector<std::string> ScratchFolder::entries() const {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(path_))
    names.push_back(std::filesystem::relative(entry.path(), path_).string());
  std::sort(names.begin(), names.end());
  return names;
}

std::filesystem::path tiny_cards() { return std::filesystem::path(IDEFICS_SOURCE_DIR) / "models/tiny-cards"; }
std::filesystem::path golden(const std::string& name) { return std::filesystem::path(IDEFICS_GOLDENS) / name; }

std::vector<std::filesystem::path> all_models() {
  std::vector<std::filesystem::path> out = {tiny_cards()};
  for (const auto& entry : std::filesystem::directory_iterator(golden("checkpoints"))) {
    if (entry.is_directory()) out.push_back(entry.path());
  }
  EXPECT_EQ(out.size(), 7u);
  return out;
}

std::string read(const std::filesystem::path& path) { return read_file(path, uint64_t{1} << 28); }

std::vector<json::value> read_rows(const std::filesystem::path& jsonl) {
  const std::string text = read(jsonl);
  std::vector<json::value> rows;
  for (size_t start = 0; start < text.size();) {
    const size_t end = std::min(text.find('\n', start), text.size());
    if (end > start) rows.push_back(parse_json(std::string_view(text).substr(start, end - start), jsonl.string()));
    start = end + 1;
  }
  return rows;
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << "nothing to replace: " << from;
  return at == std::string::npos ? text : text.replace(at, from.size(), to);
}

}  // namespace idefics::e2e
