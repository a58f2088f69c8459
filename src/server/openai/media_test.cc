#include "server/openai/media.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "base/files.h"
#include "server/openai/api_error.h"

namespace idefics::openai {
namespace {

namespace fs = std::filesystem;

std::string code_of(const std::string& url, const MediaPolicy& policy = {}) {
  try {
    read_picture_url(url, "url", policy);
    return "";
  } catch (const ApiError& e) {
    EXPECT_EQ(e.status, 400) << url;
    EXPECT_EQ(e.param, "url");
    return e.code;
  }
}

class Folder {
 public:
  Folder() {
    std::string name = (fs::temp_directory_path() / "idefics-media-XXXXXX").string();
    EXPECT_NE(::mkdtemp(name.data()), nullptr);
    root = fs::canonical(name);
    fs::create_directories(root / "allowed/sub");
    write_file(root / "allowed/a b.png", "inside");
    write_file(root / "allowed/sub/c.png", "deeper");
    write_file(root / "secret", "SECRET");
    fs::create_symlink(root / "secret", root / "allowed/absolute");
    fs::create_symlink("../secret", root / "allowed/relative");
    fs::create_symlink("..", root / "allowed/up");
    fs::create_symlink("sub/c.png", root / "allowed/fine");
    fs::create_symlink("/proc/self/root", root / "allowed/magic");
    fs::create_symlink("loop", root / "allowed/loop");
    EXPECT_EQ(::mkfifo((root / "allowed/fifo").c_str(), 0600), 0);
  }
  ~Folder() { fs::remove_all(root); }
  fs::path root;
};

TEST(Media, base64_is_taken_as_it_is_written_and_no_other_way) {
  std::string bytes;
  EXPECT_TRUE(decode_base64("AAEC", bytes));
  EXPECT_EQ(bytes, std::string("\0\1\2", 3));
  EXPECT_TRUE(decode_base64("AA==", bytes));
  EXPECT_EQ(bytes, std::string("\0", 1));
  EXPECT_TRUE(decode_base64("AAE=", bytes));
  EXPECT_EQ(bytes.size(), 2u);
  EXPECT_TRUE(decode_base64("+/+/", bytes));
  for (const std::string text : {"", "A", "AA", "AAA", "A===", "====", "AA=A", "A=AA", "AAAA=", "AA==AA==", " AAA",
                                 "AAA ", "AA\nA", "AAA-", "AA_A", "AA%3D", "AA\xc3\xa9", "\nAAAA", "AAAA\n\n\n\n"})
    EXPECT_FALSE(decode_base64(text, bytes)) << text;
}

TEST(Media, data_urls_of_pictures_are_taken) {
  for (const std::string head :
       {"data:image/png;base64,", "DATA:IMAGE/JPEG;BASE64,", "data:image/jpg;base64,",
        "data:image/webp;charset=x;base64,", "data:image/tiff;base64,", "data:image/gif;base64,"})
    EXPECT_EQ(code_of(head + "AAEC"), "") << head;
  EXPECT_EQ(read_picture_url("data:image/png;base64,aGVsbG8=", "url", {}), "hello");
}

TEST(Media, other_urls_are_refused_without_a_look) {
  for (const std::string url : {"http://127.0.0.1/x.png",
                                "https://example.org/x.png",
                                "HTTP://x",
                                "ftp://x/y.png",
                                "file:///etc/passwd",
                                "FILE:///etc/passwd",
                                "gopher://x",
                                "javascript:alert(1)",
                                "blob:x",
                                "",
                                "x.png",
                                "/etc/passwd",
                                "//evil/x.png",
                                "data:text/html;base64,AAAA",
                                "data:image/svg+xml;base64,AAAA",
                                "data:application/octet-stream;base64,AAAA",
                                "data:;base64,AAAA",
                                "data:,AAAA",
                                "data:image/png,file:///x;base64,AAAA\t",
                                " data:image/png;base64,AAAA"}) {
    const std::string code = code_of(url);
    EXPECT_TRUE(code == "image_url_not_allowed" || (code == "image_invalid" && url.starts_with("data:image/png")))
        << url << code;
  }
  EXPECT_EQ(code_of("data:image/png;base64"), "image_invalid");
  EXPECT_EQ(code_of("data:image/png;base64,"), "image_invalid");
  EXPECT_EQ(code_of("data:image/png;base64,?!?="), "image_invalid");
  EXPECT_EQ(code_of("data:image/png,AAAA"), "image_invalid");
  EXPECT_EQ(code_of("data:image/png;base64x,AAAA"), "image_invalid");
}

TEST(Media, a_picture_over_the_limit_is_refused_before_it_is_decoded) {
  const MediaPolicy policy{.folder = {}, .max_bytes = 9};
  EXPECT_EQ(code_of("data:image/png;base64,AAAAAAAAAAAA", policy), "");
  EXPECT_EQ(code_of("data:image/png;base64,AAAAAAAAAAAAAA==", policy), "image_too_large");
  EXPECT_EQ(code_of("data:image/png;base64," + std::string(4000, 'A'), policy), "image_too_large");
}

TEST(Media, files_below_the_folder_are_read_and_no_others) {
  const Folder folder;
  const MediaPolicy policy{.folder = folder.root / "allowed", .max_bytes = 100};
  const std::string base = "file://" + policy.folder.string() + "/";
  EXPECT_EQ(read_picture_url(base + "a%20b.png", "url", policy), "inside");
  EXPECT_EQ(read_picture_url(base + "sub/c.png", "url", policy), "deeper");
  EXPECT_EQ(read_picture_url(base + "sub/../sub/./c.png", "url", policy), "deeper");
  EXPECT_EQ(read_picture_url(base + "fine", "url", policy), "deeper");
  EXPECT_EQ(read_picture_url("file://localhost" + policy.folder.string() + "/fine", "url", policy), "deeper");
  const std::vector<std::string> outside = {base + "../secret",
                                            base + "%2e%2e/secret",
                                            base + "..%2fsecret",
                                            base + "sub/../../secret",
                                            base + "absolute",
                                            base + "relative",
                                            base + "up/secret",
                                            base + "up/allowed/../secret",
                                            base,
                                            "file://" + policy.folder.string(),
                                            "file://" + (folder.root / "secret").string(),
                                            "file:///etc/passwd",
                                            "file://evil" + policy.folder.string() + "/fine",
                                            "file:" + (folder.root / "allowedx/fine").string(),
                                            base + "fine?x=1",
                                            base + "fine#x",
                                            base + "fi%00ne",
                                            base + "fi%ne",
                                            base + "%",
                                            base + std::string(5000, 'a'),
                                            "file:",
                                            "file://",
                                            "file:///",
                                            "file:relative",
                                            base + "/../../secret",
                                            "file:///proc/self/environ",
                                            "file:///dev/zero"};
  for (const std::string& url : outside) EXPECT_EQ(code_of(url, policy), "image_url_not_allowed") << url;
  for (const std::string name : {"none.png", "fifo", "sub", "magic/etc/passwd", "loop", "sub/", "."}) {
    const std::string code = code_of(base + name, policy);
    EXPECT_TRUE(code == "image_invalid" || code == "image_url_not_allowed") << name << code;
  }
  write_file(policy.folder / "large.png", std::string(101, 'x'));
  EXPECT_EQ(code_of(base + "large.png", policy), "image_too_large");
}

TEST(Media, a_link_that_is_swapped_meanwhile_leads_nowhere_else) {
  const Folder folder;
  const MediaPolicy policy{.folder = folder.root / "allowed"};
  const std::string url = "file://" + policy.folder.string() + "/swap/c.png";
  fs::create_directories(folder.root / "outside");
  write_file(folder.root / "outside/c.png", "SECRET");
  std::atomic<bool> ending = false;
  std::thread swapper([&] {
    const fs::path swap = policy.folder / "swap", next = policy.folder / "next";
    for (bool inside = false; !ending; inside = !inside) {
      std::error_code ignored;
      fs::remove(next, ignored);
      fs::create_symlink(inside ? fs::path("sub") : folder.root / "outside", next, ignored);
      fs::rename(next, swap, ignored);
    }
  });
  int read = 0;
  for (int i = 0; i < 10'000; ++i) {
    try {
      EXPECT_EQ(read_picture_url(url, "url", policy), "deeper");
      ++read;
    } catch (const ApiError&) {
    }
  }
  ending = true;
  swapper.join();
  EXPECT_GT(read, 0);
}

}  // namespace
}  // namespace idefics::openai
