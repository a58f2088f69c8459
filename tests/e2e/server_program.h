// `idefics serve` as a child, on a free port or a unix socket.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "program.h"

namespace idefics::e2e {

class ServerProgram {
 public:
  // Waits until its model is loaded; a failed test when it does not come to that.
  explicit ServerProgram(const std::vector<std::string>& more,
                         const std::map<std::string, std::string>& environment = {});
  ServerProgram(const ServerProgram&) = delete;
  ServerProgram& operator=(const ServerProgram&) = delete;
  ~ServerProgram();  // kills it if it still runs

  const std::string& url() const { return url_; }
  int port() const;
  pid_t pid() const { return pid_; }
  std::string log() const;
  // Waits until `text` stands in the log: a line is written behind its response.
  bool logs(const std::string& text) const;
  void signal(int number) const;
  // Waits for its end; the exit code, -1 when it had to be killed after `timeout_ms`.
  int wait(int timeout_ms);
  long rss_kib() const;
  double cpu_seconds() const;  // of all its threads so far
  int descriptors() const;
  // Those whose number is below `limit`: one that a parent left open may have any.
  int descriptors_below(int limit) const;
  std::vector<pid_t> children() const;  // the dead ones that it has not buried, too

 private:
  ScratchFolder scratch_;
  pid_t pid_ = -1;
  std::string url_;
};

}  // namespace idefics::e2e
