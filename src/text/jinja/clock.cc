#include "text/jinja/clock.h"

#include <fmt/format.h>
#include <locale.h>
#include <sys/time.h>

#include <ctime>
#include <vector>

namespace idefics::jinja {
namespace {

std::tm to_tm(const CivilTime& time) {
  std::tm tm{};
  tm.tm_year = time.year - 1900;
  tm.tm_mon = time.month - 1;
  tm.tm_mday = time.day;
  tm.tm_hour = time.hour;
  tm.tm_min = time.minute;
  tm.tm_sec = time.second;
  tm.tm_isdst = -1;
  std::tm normal = tm;
  ::timegm(&normal);  // only for the day of the week and of the year
  tm.tm_wday = normal.tm_wday;
  tm.tm_yday = normal.tm_yday;
  return tm;
}

// datetime knows %f itself and, without a time zone, prints nothing for %z and %Z.
std::string replace_directives(const CivilTime& time, const std::string& format) {
  std::string out;
  for (size_t i = 0; i < format.size(); ++i) {
    if (format[i] != '%' || i + 1 == format.size()) {
      out += format[i];
      continue;
    }
    const char letter = format[++i];
    if (letter == 'f') {
      out += fmt::format("{:06}", time.microsecond);
    } else if (letter != 'z' && letter != 'Z') {
      out += '%';
      out += letter;
    }
  }
  return out;
}

}  // namespace

CivilTime local_time() {
  timeval now{};
  ::gettimeofday(&now, nullptr);
  std::tm tm{};
  ::localtime_r(&now.tv_sec, &tm);
  return {
      tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, static_cast<int>(now.tv_usec)};
}

std::string format_time(const CivilTime& time, const std::string& format) {
  const std::string pattern = replace_directives(time, format);
  if (pattern.empty()) return "";
  const std::tm tm = to_tm(time);
  // The longest directive of a sane format needs far less than 256 bytes a letter. What needs more gives nothing, as in
  // Python.
  std::vector<char> buffer(256 * pattern.size() + 1);
  static const locale_t c_locale = ::newlocale(LC_ALL_MASK, "C", nullptr);
  const size_t size = ::strftime_l(buffer.data(), buffer.size(), pattern.c_str(), &tm, c_locale);
  return std::string(buffer.data(), size);
}

}  // namespace idefics::jinja
