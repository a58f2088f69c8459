#include "decoder/sandbox.h"

#include <fmt/format.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "decoder/protocol.h"
#include "idefics/error.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define IDEFICS_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define IDEFICS_SANITIZED 1
#endif
#endif

namespace idefics::decoder {

namespace {

[[noreturn]] void fail(const char* what) {
  throw Error(ErrorCode::kIo, fmt::format("decoding process: {}: {}", what, std::strerror(errno)));
}

void limit(__rlimit_resource_t resource, uint64_t value) {
  struct rlimit now {};
  if (::getrlimit(resource, &now) != 0) fail("getrlimit");
  // Somebody may have set a lower one already.
  now.rlim_max = std::min<rlim_t>(now.rlim_max, value);
  now.rlim_cur = std::min<rlim_t>(now.rlim_cur, now.rlim_max);
  if (::setrlimit(resource, &now) != 0) fail("setrlimit");
}

void limit_resources() {
#ifndef IDEFICS_SANITIZED  // sanitizers take terabytes of addresses
  // The program itself, the shared memory, a picture twice, and what a decoder may take beside it.
  constexpr uint64_t kProgramBytes = uint64_t{256} << 20;
  limit(RLIMIT_AS, kProgramBytes + kInputBytes + 3 * kOutputBytes + kLimits.max_decode_bytes);
#endif
  limit(RLIMIT_CORE, 0);
  limit(RLIMIT_FSIZE, 0);
#ifndef IDEFICS_SANITIZED
  limit(RLIMIT_NOFILE, 0);  // what is open stays open
#endif
  limit(RLIMIT_NPROC, 0);
}

// ---- Landlock ------------------------------------------------------------------------------------------------------

// As <linux/landlock.h> of Linux 6.12; the headers of older distributions have less of it.
struct LandlockRuleset {
  uint64_t files, network, scopes;
};
constexpr int kLandlockVersion = 1 << 0;  // LANDLOCK_CREATE_RULESET_VERSION
constexpr long kCreateRuleset = 444, kRestrictSelf = 446;

// A set of rules that allows nothing of all that this kernel knows to forbid.
bool enter_landlock() {
  const long version = ::syscall(kCreateRuleset, nullptr, size_t{0}, kLandlockVersion);
  if (version < 1) return false;
  LandlockRuleset nothing = {.files = (uint64_t{1} << 13) - 1, .network = 0, .scopes = 0};
  size_t bytes = sizeof nothing.files;
  if (version >= 2) nothing.files |= uint64_t{1} << 13;                    // moves between folders
  if (version >= 3) nothing.files |= uint64_t{1} << 14;                    // truncate
  if (version >= 5) nothing.files |= uint64_t{1} << 15;                    // ioctl of devices
  if (version >= 4) nothing.network = 3, bytes += sizeof nothing.network;  // bind, connect
  if (version >= 6) nothing.scopes = 3, bytes += sizeof nothing.scopes;    // abstract sockets, signals
  const long ruleset = ::syscall(kCreateRuleset, &nothing, bytes, 0);
  if (ruleset < 0) return false;
  const bool entered = ::syscall(kRestrictSelf, ruleset, 0) == 0;
  ::close(static_cast<int>(ruleset));
  return entered;
}

// ---- seccomp -------------------------------------------------------------------------------------------------------

#if defined(__x86_64__)
constexpr uint32_t kArchitecture = AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
constexpr uint32_t kArchitecture = AUDIT_ARCH_AARCH64;
#else
#error "the numbers of the system calls of this architecture are not known"
#endif

// What memory, the socket, the end and sorting (sysinfo) need. Anything else fails with EPERM. It does not kill: the
// libraries of another distribution may ask for something harmless, and a good picture must not fail for that.
constexpr uint32_t kAllowed[] = {
    SYS_read,          SYS_write,      SYS_munmap,      SYS_mremap,         SYS_madvise,      SYS_brk,
    SYS_futex,         SYS_exit_group, SYS_exit,        SYS_rt_sigprocmask, SYS_rt_sigreturn, SYS_sigaltstack,
    SYS_clock_gettime, SYS_getrandom,  SYS_sched_yield, SYS_sysinfo,
#ifdef IDEFICS_SANITIZED  // they look through a pipe whether memory can be read
    SYS_pipe2,         SYS_close,
#endif
};
// Memory, but none that can be executed.
constexpr uint32_t kWithProtection[] = {SYS_mmap, SYS_mprotect};

bool enter_seccomp() {
  const auto load = [](uint32_t offset) { return sock_filter BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offset); };
  const auto jump = [](uint16_t test, uint32_t value, uint8_t yes, uint8_t no) {
    return sock_filter BPF_JUMP(static_cast<uint16_t>(BPF_JMP | test | BPF_K), value, yes, no);
  };
  const auto verdict = [](uint32_t action) { return sock_filter BPF_STMT(BPF_RET | BPF_K, action); };
  const sock_filter refuse = verdict(SECCOMP_RET_ERRNO | EPERM);

  std::vector<sock_filter> filter = {load(offsetof(seccomp_data, arch)), jump(BPF_JEQ, kArchitecture, 1, 0),
                                     verdict(SECCOMP_RET_KILL_PROCESS), load(offsetof(seccomp_data, nr))};
  for (const uint32_t number : kAllowed) {
    filter.push_back(jump(BPF_JEQ, number, 0, 1));
    filter.push_back(verdict(SECCOMP_RET_ALLOW));
  }
  for (const uint32_t number : kWithProtection) {
    filter.push_back(jump(BPF_JEQ, number, 0, 4));
    filter.push_back(load(offsetof(seccomp_data, args) + 2 * sizeof(uint64_t)));  // the lower half: little endian
    filter.push_back(jump(BPF_JSET, PROT_EXEC, 0, 1));
    filter.push_back(refuse);
    filter.push_back(verdict(SECCOMP_RET_ALLOW));
  }
  filter.push_back(refuse);
  const sock_fprog program = {static_cast<unsigned short>(filter.size()), filter.data()};
  return ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) == 0;
}

}  // namespace

Sandbox enter_sandbox() {
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) fail("PR_SET_NO_NEW_PRIVS");
  // Dies with the thread that started it.
  if (::prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0) fail("PR_SET_PDEATHSIG");
  if (::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) fail("PR_SET_DUMPABLE");
  const bool landlock = enter_landlock();
  limit_resources();
  return {.seccomp = enter_seccomp(), .landlock = landlock};
}

}  // namespace idefics::decoder
