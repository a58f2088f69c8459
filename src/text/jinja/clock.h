// The time that strftime_now sees.
#pragma once

#include <functional>
#include <string>

namespace idefics::jinja {

struct CivilTime {
  int year = 1970, month = 1, day = 1, hour = 0, minute = 0, second = 0, microsecond = 0;
};
using Clock = std::function<CivilTime()>;

// The local time of this machine.
CivilTime local_time();
// datetime.strftime in the C locale.
std::string format_time(const CivilTime& time, const std::string& format);

}  // namespace idefics::jinja
