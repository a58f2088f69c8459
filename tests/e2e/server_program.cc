#include "server_program.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <sstream>
#include <thread>

extern char** environ;

namespace idefics::e2e {

namespace {

void sleep_ms(int ms) { std::this_thread::sleep_for(std::chrono::milliseconds(ms)); }

std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> out;
  for (std::string& text : texts) out.push_back(text.data());
  out.push_back(nullptr);
  return out;
}

}  // namespace

ServerProgram::ServerProgram(const std::vector<std::string>& more,
                             const std::map<std::string, std::string>& environment) {
  std::vector<std::string> argv = {IDEFICS_PROGRAM, "serve", tiny_cards().string(), "--port", "0"};
  argv.insert(argv.end(), more.begin(), more.end());
  std::vector<std::string> variables;
  for (char** entry = environ; *entry != nullptr; ++entry) variables.emplace_back(*entry);
  for (const auto& [name, value] : environment) variables.push_back(name + "=" + value);
  const std::string file = (scratch_.path() / "log").string();
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, file.c_str(), O_CREAT | O_WRONLY | O_APPEND, 0600);
  EXPECT_EQ(
      ::posix_spawnp(&pid_, argv.front().c_str(), &actions, nullptr, pointers(argv).data(), pointers(variables).data()),
      0);
  ::posix_spawn_file_actions_destroy(&actions);
  const auto ready = [this] {
    const std::string text = log();
    return text.find(" ready model=") != std::string::npos || text.find(R"("event":"ready")") != std::string::npos;
  };
  for (int i = 0; i < 6000 && !ready(); ++i) {
    if (::waitpid(pid_, nullptr, WNOHANG) == pid_) pid_ = -1;
    if (pid_ < 0) break;
    sleep_ms(10);
  }
  const std::string text = log();
  const size_t listening = text.find("listening");
  const size_t url = std::min(text.find("http", listening), text.find("unix:", listening));
  if (pid_ < 0 || url == std::string::npos || !ready()) {
    ADD_FAILURE() << "the server did not start: " << text;
    return;
  }
  url_ = text.substr(url, text.find_first_of("\"\n", url) - url);
}

ServerProgram::~ServerProgram() {
  if (pid_ < 0) return;
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
}

int ServerProgram::port() const { return url_.empty() ? 0 : std::stoi(url_.substr(url_.rfind(':') + 1)); }
std::string ServerProgram::log() const { return read_file(scratch_.path() / "log", uint64_t{1} << 28); }
bool ServerProgram::logs(const std::string& text) const {
  for (int i = 0; i < 500 && log().find(text) == std::string::npos; ++i) sleep_ms(10);
  return log().find(text) != std::string::npos;
}

// A pid of -1 would mean every process there is.
void ServerProgram::signal(int number) const {
  if (pid_ > 0) ::kill(pid_, number);
}

int ServerProgram::wait(int timeout_ms) {
  int status = 0;
  for (int i = 0; i < timeout_ms / 10; ++i) {
    if (::waitpid(pid_, &status, WNOHANG) == pid_) {
      pid_ = -1;
      return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    }
    sleep_ms(10);
  }
  ADD_FAILURE() << "the server did not end";
  return -1;
}

long ServerProgram::rss_kib() const {
  const Outcome outcome = run_command("grep VmRSS /proc/" + std::to_string(pid_) + "/status");
  return outcome.out.size() > 6 ? std::stol(outcome.out.substr(6)) : -1;
}

double ServerProgram::cpu_seconds() const {
  std::ifstream file("/proc/" + std::to_string(pid_) + "/stat");
  std::string line;
  std::getline(file, line);
  // Fields 14 and 15; the second one, a name in parentheses, may hold blanks.
  std::istringstream fields(line.substr(line.rfind(')') + 2));
  std::string skipped;
  for (int i = 3; i < 14; ++i) fields >> skipped;
  double user = 0, system = 0;
  fields >> user >> system;
  return (user + system) / static_cast<double>(::sysconf(_SC_CLK_TCK));
}

int ServerProgram::descriptors() const {
  const std::filesystem::directory_iterator all("/proc/" + std::to_string(pid_) + "/fd");
  return static_cast<int>(std::distance(begin(all), end(all)));
}

int ServerProgram::descriptors_below(int limit) const {
  const std::filesystem::directory_iterator all("/proc/" + std::to_string(pid_) + "/fd");
  return static_cast<int>(
      std::count_if(begin(all), end(all), [&](const auto& one) { return std::stoi(one.path().filename()) < limit; }));
}

std::vector<pid_t> ServerProgram::children() const {
  std::vector<pid_t> found;
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    std::ifstream status(entry.path() / "stat");
    std::string name, state;
    pid_t pid = 0, parent = 0;
    if (status >> pid >> name >> state >> parent && parent == pid_) found.push_back(pid);
  }
  return found;
}

}  // namespace idefics::e2e
