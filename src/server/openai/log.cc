#include "server/openai/log.h"

#include <fmt/format.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <iterator>

#include "base/json.h"
#include "base/utf8.h"

namespace idefics::openai {

namespace {

std::string quoted(std::string_view text) { return json::serialize(json::string(repair_utf8(text))); }

bool is_plain(std::string_view text) {
  return !text.empty() &&
         text.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:+[]") ==
             std::string_view::npos;
}

// Fields whose values are numbers, which JSON has without quotes. By name, so that a field has one type in all lines.
bool is_number(std::string_view key) {
  constexpr std::string_view kNumbers[] = {"status", "ms", "prompt_tokens", "completion_tokens", "tensors"};
  return std::find(std::begin(kNumbers), std::end(kNumbers), key) != std::end(kNumbers) || key.ends_with("_mib") ||
         key.ends_with("_s");
}

std::shared_ptr<spdlog::logger> make_logger(LogFormat format) {
  auto logger = std::make_shared<spdlog::logger>("idefics", std::make_shared<spdlog::sinks::stderr_sink_mt>());
  logger->set_pattern(format == LogFormat::kJson ? R"({"time":"%Y-%m-%dT%H:%M:%S.%e%z","level":"%l",%v})"
                                                 : "%Y-%m-%dT%H:%M:%S.%e%z %l %v");
  // A full disk must not end the serving, nor fill what is left of standard error with complaints.
  logger->set_error_handler([](const std::string&) {});
  return logger;
}

}  // namespace

Log::Log(LogFormat format) : format_(format), logger_(make_logger(format)) {}
Log::~Log() = default;

std::string Log::line(LogFormat format, std::string_view event, const http::Headers& fields) {
  std::string out = format == LogFormat::kJson ? "\"event\":" + quoted(event) : std::string(event);
  for (const auto& [key, value] : fields) {
    if (format == LogFormat::kJson) {
      out += fmt::format(",{}:{}", quoted(key), is_number(key) ? value : quoted(value));
    } else {
      out += fmt::format(" {}={}", key, is_plain(value) ? value : quoted(value));
    }
  }
  return out;
}

void Log::info(std::string_view event, const http::Headers& fields) {
  if (format_ != LogFormat::kNone) logger_->info("{}", line(format_, event, fields));
}
void Log::warning(std::string_view event, const http::Headers& fields) {
  if (format_ != LogFormat::kNone) logger_->warn("{}", line(format_, event, fields));
}
void Log::error(std::string_view event, const http::Headers& fields) {
  if (format_ != LogFormat::kNone) logger_->error("{}", line(format_, event, fields));
}

}  // namespace idefics::openai
