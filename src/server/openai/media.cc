#include "server/openai/media.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/openat2.h>
#include <openssl/evp.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <climits>
#include <optional>

#include "server/http/message.h"
#include "server/openai/api_error.h"

namespace idefics::openai {

namespace {

constexpr std::array<std::string_view, 7> kPictureTypes = {"image/png",  "image/jpeg", "image/jpg", "image/webp",
                                                           "image/tiff", "image/gif",  "image/bmp"};

[[noreturn]] void refuse_url(const std::string& param, const std::string& message) {
  throw bad_request("image_url_not_allowed", param, fmt::format("{}: {}", param, message));
}

[[noreturn]] void refuse_size(const std::string& param, const MediaPolicy& policy) {
  throw bad_request("image_too_large", param,
                    fmt::format("{}: the picture has over {} bytes; send it smaller", param, policy.max_bytes));
}

std::string read_data_url(std::string_view url, const std::string& param, const MediaPolicy& policy) {
  const size_t comma = url.substr(0, 256).find(',');
  if (comma == std::string_view::npos)
    throw bad_request("image_invalid", param,
                      fmt::format("{}: a data URL without a comma, wanted data:image/png;base64,...", param));
  const std::string_view head = url.substr(0, comma), text = url.substr(comma + 1);
  const std::string type = http::lower(head.substr(0, head.find(';')));
  if (std::find(kPictureTypes.begin(), kPictureTypes.end(), type) == kPictureTypes.end())
    refuse_url(param, "a data URL of another type than image/png, jpeg, webp, tiff, gif or bmp");
  if (!http::lower(head).ends_with(";base64"))
    throw bad_request("image_invalid", param, fmt::format("{}: a data URL without \";base64\"", param));
  if (text.size() / 4 * 3 > policy.max_bytes + 2) refuse_size(param, policy);
  std::string bytes;
  if (!decode_base64(text, bytes))
    throw bad_request("image_invalid", param, fmt::format("{}: the data URL is not base64", param));
  if (bytes.size() > policy.max_bytes) refuse_size(param, policy);
  return bytes;
}

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// "%20" -> " ". Nothing when it is malformed or would hide a NUL.
std::optional<std::string> percent_decoded(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out += text[i];
      continue;
    }
    const int high = i + 2 < text.size() ? hex_digit(text[i + 1]) : -1;
    const int low = high >= 0 ? hex_digit(text[i + 2]) : -1;
    if (low < 0) return std::nullopt;
    out += static_cast<char>(high * 16 + low);
    i += 2;
  }
  if (out.find('\0') != std::string::npos) return std::nullopt;
  return out;
}

struct Descriptor {
  explicit Descriptor(int number) : fd(number) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
  const int fd;
};

// The path of a file: URL below the folder, relative to it.
std::optional<std::string> path_below(const std::string& path, const std::filesystem::path& folder) {
  std::string prefix = folder.string();
  if (!prefix.ends_with('/')) prefix += '/';
  if (!path.starts_with(prefix) || path.size() == prefix.size()) return std::nullopt;
  return path.substr(prefix.size());
}

std::string read_file_url(std::string_view url, const std::string& param, const MediaPolicy& policy) {
  if (policy.folder.empty()) refuse_url(param, "file: URLs are not allowed by this server; send a data URL");
  std::string_view rest = url.substr(std::string_view("file:").size());
  if (rest.starts_with("//localhost/")) rest.remove_prefix(std::string_view("//localhost").size());
  if (rest.starts_with("///")) rest.remove_prefix(2);
  const std::optional<std::string> path = rest.size() > PATH_MAX || rest.find_first_of("?#") != std::string_view::npos
                                              ? std::nullopt
                                              : percent_decoded(rest);
  const std::optional<std::string> below = path ? path_below(*path, policy.folder) : std::nullopt;
  if (!below) refuse_url(param, "a file: URL outside of the folder that this server allows");

  const Descriptor folder(::open(policy.folder.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  // The kernel walks the path and refuses what leaves the folder, links and ".." included, whoever renames what
  // meanwhile. O_PATH: looking at a FIFO or a device must not open it.
  struct open_how how {};
  how.flags = O_PATH | O_CLOEXEC;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS;
  const Descriptor place(
      folder.fd < 0 ? -1 : static_cast<int>(::syscall(SYS_openat2, folder.fd, below->c_str(), &how, sizeof how)));
  if (place.fd < 0 && errno == EXDEV) refuse_url(param, "a file: URL outside of the folder that this server allows");
  struct stat info {};
  if (place.fd < 0 || ::fstat(place.fd, &info) != 0 || !S_ISREG(info.st_mode))
    throw bad_request("image_invalid", param, fmt::format("{}: there is no such file", param));
  if (info.st_size < 0 || static_cast<uint64_t>(info.st_size) > policy.max_bytes) refuse_size(param, policy);
  // The same file, this time for reading: through /proc nothing is looked up by name again.
  const Descriptor file(::open(fmt::format("/proc/self/fd/{}", place.fd).c_str(), O_RDONLY | O_CLOEXEC));
  std::string bytes(static_cast<size_t>(info.st_size), '\0');
  size_t got = 0;
  while (file.fd >= 0 && got < bytes.size()) {
    const ssize_t n = ::read(file.fd, bytes.data() + got, bytes.size() - got);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    got += static_cast<size_t>(n);
  }
  if (file.fd < 0 || got < bytes.size())
    throw bad_request("image_invalid", param, fmt::format("{}: the file cannot be read", param));
  return bytes;
}

}  // namespace

bool decode_base64(std::string_view text, std::string& bytes) {
  bytes.clear();
  if (text.empty() || text.size() % 4 != 0 || text.size() > INT_MAX) return false;
  const size_t padding = text.ends_with("==") ? 2 : text.ends_with('=') ? 1 : 0;
  // OpenSSL skips blanks at both ends and takes "=" anywhere for zero bits.
  const std::string_view digits = text.substr(0, text.size() - padding);
  if (digits.find_first_of("= \t\r\n\v\f-") != std::string_view::npos) return false;
  bytes.resize(text.size() / 4 * 3);
  const int n = ::EVP_DecodeBlock(reinterpret_cast<unsigned char*>(bytes.data()),
                                  reinterpret_cast<const unsigned char*>(text.data()), static_cast<int>(text.size()));
  if (n < 0) return false;
  bytes.resize(static_cast<size_t>(n) - padding);
  return true;
}

std::optional<fetch::Url> find_fetch_url(std::string_view url, const std::string& param, const MediaPolicy& policy) {
  const std::string scheme = http::lower(url.substr(0, std::min<size_t>(6, url.size())));
  if (policy.hosts.empty() || (scheme != "https:" && !scheme.starts_with("http:"))) return std::nullopt;
  std::optional<fetch::Url> parsed = fetch::parse_url(url);
  if (!parsed) refuse_url(param, "not a plain URL, wanted https://host/path with the name of a host");
  if (!policy.hosts.contains(parsed->origin)) refuse_url(param, "its host is not one that this server fetches from");
  return parsed;
}

std::string read_picture_url(std::string_view url, const std::string& param, const MediaPolicy& policy) {
  const std::string scheme = http::lower(url.substr(0, std::min<size_t>(8, url.size())));
  if (scheme.starts_with("data:")) return read_data_url(url.substr(5), param, policy);
  if (scheme.starts_with("file:")) return read_file_url(url, param, policy);
  if (scheme.starts_with("http:") || scheme.starts_with("https:"))
    refuse_url(param, "this server fetches no pictures; send a data URL (data:image/png;base64,...)");
  refuse_url(param, "wanted a data URL (data:image/png;base64,...)");
}

}  // namespace idefics::openai
