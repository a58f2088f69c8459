// The server's log: one line an event, as text or as JSON. Never prompts, pictures, answers or keys.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "server/http/message.h"

namespace spdlog {
class logger;
}

namespace idefics::openai {

enum class LogFormat { kText, kJson, kNone };

// Threads: any.
class Log {
 public:
  // To standard error.
  explicit Log(LogFormat format);
  ~Log();

  void info(std::string_view event, const http::Headers& fields = {});
  void warning(std::string_view event, const http::Headers& fields = {});
  void error(std::string_view event, const http::Headers& fields = {});

  // What is behind the time and the level: `event key=value ...` or `"event":"...","key":"value"`. Control characters
  // are escaped, so that no value can write a line of its own. docs/server.md has the fields. A new field whose values
  // are numbers is named so in log.cc.
  static std::string line(LogFormat format, std::string_view event, const http::Headers& fields);

 private:
  const LogFormat format_;
  const std::shared_ptr<spdlog::logger> logger_;
};

}  // namespace idefics::openai
