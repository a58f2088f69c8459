// The only file that knows Boost.Beast.
//
// One of its assertions is wrong: a first chunk of "0\r\n" that comes alone is shorter than it believes possible. What
// it does then is right, so its assertions are off in every build, here alone.
#define BOOST_DISABLE_ASSERTS
#include "server/http/request_parser.h"

#include <algorithm>
#include <boost/beast/http/basic_parser.hpp>

#include "base/check.h"

namespace idefics::http {

namespace beast = boost::beast;
using beast::http::error;
using Code = boost::system::error_code;
using View = beast::string_view;

namespace {

std::string_view view(View text) { return {text.data(), text.size()}; }

// A number as everybody reads it. Beast takes lists of equal lengths too, with blanks around their commas, and zeros in
// front: another parser may find another length there.
bool is_plain_length(std::string_view text) {
  const bool digits = !text.empty() && std::ranges::all_of(text, [](char c) { return c >= '0' && c <= '9'; });
  return digits && (text == "0" || text.front() != '0');
}

// Beast takes a folded header apart silently; whoever folds wants two parsers to see different things.
bool has_bare_or_folded_line(std::string_view head) {
  for (size_t at = head.find('\n'); at != std::string_view::npos; at = head.find('\n', at + 1)) {
    if (at == 0 || head[at - 1] != '\r') return true;
    if (at + 1 < head.size() && (head[at + 1] == ' ' || head[at + 1] == '\t')) return true;
  }
  return false;
}

}  // namespace

class RequestParser::Reader : public beast::http::basic_parser<true> {
 public:
  explicit Reader(const Limits& limits) : limits_(limits) {
    header_limit(static_cast<std::uint32_t>(limits.head_bytes));
    body_limit(limits.body_bytes);
  }

  Request request;
  bool in_body = false;

 private:
  void on_request_impl(beast::http::verb, View method, View target, int version, Code& ec) override {
    if (method.size() + target.size() + 11 > limits_.request_line_bytes) {
      ec = error::header_limit;
      return;
    }
    const std::string_view whole = view(target);
    const size_t mark = std::min(whole.find('?'), whole.size());
    request.method = std::string(view(method));
    request.path = std::string(whole.substr(0, mark));
    request.query = std::string(whole.substr(std::min(mark + 1, whole.size())));
    request.version = version;
  }
  void on_response_impl(int, View, int, Code&) override {}
  void on_field_impl(beast::http::field, View name, View value, Code& ec) override {
    if (in_body) return;  // a trailer: nothing here has use for one, and it must not look like a header
    if (std::ssize(request.headers) >= limits_.headers) {
      ec = error::header_limit;
      return;
    }
    request.headers.emplace_back(lower(view(name)), std::string(view(value)));
  }
  void on_header_impl(Code&) override {}
  void on_body_init_impl(const boost::optional<std::uint64_t>&, Code&) override { in_body = true; }
  // The body grows with what came, not with what Content-Length promises.
  std::size_t on_body_impl(View body, Code&) override {
    request.body.append(body.data(), body.size());
    return body.size();
  }
  void on_chunk_header_impl(std::uint64_t, View, Code&) override {}
  std::size_t on_chunk_body_impl(std::uint64_t, View body, Code&) override {
    request.body.append(body.data(), body.size());
    return body.size();
  }
  void on_finish_impl(Code&) override {}

  const Limits& limits_;
};

RequestParser::RequestParser(const Limits& limits) : limits_(limits), reader_(std::make_unique<Reader>(limits_)) {}
RequestParser::~RequestParser() = default;

const Request& RequestParser::request() const { return reader_->request; }
Request RequestParser::take() { return std::move(reader_->request); }

size_t RequestParser::push(std::string_view bytes) {
  size_t used = 0;
  const State before = state_;
  while (state_ == before && (state_ == State::kHead || state_ == State::kBody)) {
    const size_t n = read(bytes.substr(used));
    used += n;
    if (n == 0) break;
  }
  return used;
}

// One step of Beast's machine: at most the head, or one piece of the body.
size_t RequestParser::read(std::string_view bytes) {
  const bool head = state_ == State::kHead;
  Code ec;
  if (bytes.empty()) return 0;
  const size_t used = reader_->put(boost::asio::const_buffer(bytes.data(), bytes.size()), ec);
  if (head && reader_->is_header_done() && has_bare_or_folded_line(bytes.substr(0, used))) ec = error::bad_line_ending;
  if (ec == error::need_more) {
    // Only the head, the line in front of a chunk and the trailers are kept until they are complete.
    if (bytes.size() - used <= limits_.head_bytes) return used;
    ec = error::header_limit;
  }
  if (ec) {
    state_ = State::kFailed;
    fault_ = Fault::kMalformed;
    if (ec == error::header_limit) fault_ = Fault::kHeadersTooLarge;
    if (ec == error::body_limit) fault_ = Fault::kBodyTooLarge;
    return used;
  }
  if (head && reader_->is_header_done()) check_head();
  if (state_ != State::kFailed && reader_->is_done()) state_ = State::kDone;
  return used;
}

void RequestParser::check_head() {
  Request& request = reader_->request;
  request.keep_alive = reader_->keep_alive();
  const bool chunked_only =
      request.count("transfer-encoding") == 0 || (request.count("transfer-encoding") == 1 && request.version == 11 &&
                                                  same_word(trimmed(request.header("transfer-encoding")), "chunked"));
  const int lengths = request.count("content-length");
  const bool length_fits = lengths == 0 || (lengths == 1 && is_plain_length(request.header("content-length")));
  const int hosts = request.count("host");
  const bool host_fits = hosts == 1 || (hosts == 0 && request.version == 10);
  const bool path_fits = request.path.starts_with('/') || (request.path == "*" && request.method == "OPTIONS");
  state_ = chunked_only && length_fits && host_fits && path_fits ? State::kBody : State::kFailed;
  fault_ = Fault::kMalformed;
}

}  // namespace idefics::http
