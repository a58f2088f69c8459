#include "server_program.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

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
  for (int i = 0; i < 6000 && log().find(" ready model=") == std::string::npos; ++i) {
    if (::waitpid(pid_, nullptr, WNOHANG) == pid_) pid_ = -1;
    if (pid_ < 0) break;
    sleep_ms(10);
  }
  const std::string text = log();
  const size_t at = text.find("listening url=");
  if (pid_ < 0 || at == std::string::npos || text.find(" ready model=") == std::string::npos) {
    ADD_FAILURE() << "the server did not start: " << text;
    return;
  }
  url_ = text.substr(at + 14, text.find('\n', at) - at - 14);
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

void ServerProgram::signal(int number) const { ::kill(pid_, number); }

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

}  // namespace idefics::e2e
