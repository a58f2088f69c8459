#include "server/page/page.h"

#include <array>

#include "server/page_files.h"

namespace idefics::page {

namespace {

struct File {
  std::string_view path, type, bytes;
};

// Pictures that are dropped are shown from memory (blob:); scripts, styles and requests come from and go to this server
// alone, and no other page may frame this one.
constexpr const char* kPolicy =
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' blob: data:; base-uri "
    "'none'; "
    "form-action 'none'; frame-ancestors 'none'";

}  // namespace

http::Response respond(std::string_view path) {
  const std::array files = {
      File{"/", "text/html; charset=utf-8", files::index_html},
      File{"/page/style.css", "text/css; charset=utf-8", files::style_css},
      File{"/page/app.js", "text/javascript; charset=utf-8", files::app_js},
      File{"/page/stream.js", "text/javascript; charset=utf-8", files::stream_js},
  };
  for (const File& file : files) {
    if (file.path != path) continue;
    return {.status = 200,
            .headers = {{"content-type", std::string(file.type)},
                        {"cache-control", "no-cache"},
                        {"content-security-policy", kPolicy},
                        {"referrer-policy", "no-referrer"},
                        {"cross-origin-opener-policy", "same-origin"}},
            .body = std::string(file.bytes)};
  }
  return {.status = 404};
}

}  // namespace idefics::page
