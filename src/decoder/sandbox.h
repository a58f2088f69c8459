// Gives up, for good, what a process that decodes pictures has no use for.
#pragma once

namespace idefics::decoder {

struct Sandbox {
  bool seccomp, landlock;  // whether the kernel has them
};

// From here on this process may compute, ask for memory up to a limit, read and write descriptors that are open, and
// end; all other calls fail. Only for a process with one thread. Errors: kIo, when the kernel refuses what it has.
Sandbox enter_sandbox();

}  // namespace idefics::decoder
