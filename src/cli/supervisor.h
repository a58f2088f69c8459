// Talks to the service manager that started the program, in systemd's protocol (sd_notify(3)).
#pragma once

#include <string_view>

namespace idefics::cli {

// "READY=1", "STOPPING=1". Nothing happens when nobody asked to be told ($NOTIFY_SOCKET), or when it cannot be: then
// the manager's own time limits count.
void tell_supervisor(std::string_view state);

}  // namespace idefics::cli
