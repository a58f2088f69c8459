#include "server/openai/json_body.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json/basic_parser_impl.hpp>
#include <cmath>
#include <memory>
#include <vector>

#include "server/openai/api_error.h"

namespace idefics::openai {

namespace {

using Code = boost::system::error_code;
using View = json::string_view;

// Boost's events of a text, with what its own handler does not look at.
class StrictHandler {
 public:
  static constexpr std::size_t max_object_size = static_cast<std::size_t>(-1);
  static constexpr std::size_t max_array_size = static_cast<std::size_t>(-1);
  static constexpr std::size_t max_key_size = static_cast<std::size_t>(-1);
  static constexpr std::size_t max_string_size = static_cast<std::size_t>(-1);

  explicit StrictHandler(const JsonLimits& limits) : limits_(limits) { stack_.reset(); }

  json::value release() { return stack_.release(); }
  const std::string& problem() const { return problem_; }

  bool on_document_begin(Code&) { return true; }
  bool on_document_end(Code&) { return true; }
  bool on_object_begin(Code& ec) {
    keys_.emplace_back();
    return count(ec);
  }
  bool on_object_end(std::size_t n, Code& ec) {
    std::vector<std::string>& keys = keys_.back();
    std::sort(keys.begin(), keys.end());
    const auto twice = std::adjacent_find(keys.begin(), keys.end());
    if (twice != keys.end()) return fail(fmt::format("the key \"{}\" comes twice", twice->substr(0, 60)), ec);
    keys_.pop_back();
    stack_.push_object(n);
    return true;
  }
  bool on_array_begin(Code& ec) { return count(ec); }
  bool on_array_end(std::size_t n, Code&) {
    stack_.push_array(n);
    return true;
  }
  bool on_key_part(View text, std::size_t, Code&) {
    key_.append(text.data(), text.size());
    stack_.push_chars(text);
    return true;
  }
  bool on_key(View text, std::size_t, Code& ec) {
    key_.append(text.data(), text.size());
    stack_.push_key(text);
    keys_.back().push_back(std::exchange(key_, {}));
    if (keys_.back().size() > limits_.keys) return fail(fmt::format("an object has over {} keys", limits_.keys), ec);
    return true;
  }
  bool on_string_part(View text, std::size_t, Code&) {
    stack_.push_chars(text);
    return true;
  }
  bool on_string(View text, std::size_t, Code& ec) {
    stack_.push_string(text);
    return count(ec);
  }
  bool on_number_part(View, Code&) { return true; }
  bool on_int64(std::int64_t value, View, Code& ec) {
    stack_.push_int64(value);
    return count(ec);
  }
  bool on_uint64(std::uint64_t value, View, Code& ec) {
    stack_.push_uint64(value);
    return count(ec);
  }
  bool on_double(double value, View, Code& ec) {
    if (!std::isfinite(value)) return fail("a number is too large", ec);
    stack_.push_double(value);
    return count(ec);
  }
  bool on_bool(bool value, Code& ec) {
    stack_.push_bool(value);
    return count(ec);
  }
  bool on_null(Code& ec) {
    stack_.push_null();
    return count(ec);
  }
  bool on_comment_part(View, Code&) { return true; }
  bool on_comment(View, Code&) { return true; }

 private:
  bool count(Code& ec) {
    return ++nodes_ <= limits_.nodes || fail(fmt::format("it has over {} values", limits_.nodes), ec);
  }
  bool fail(std::string problem, Code& ec) {
    problem_ = std::move(problem);
    ec = json::error::syntax;
    return false;
  }

  const JsonLimits limits_;
  json::value_stack stack_;
  std::vector<std::vector<std::string>> keys_;  // of the objects that are open
  std::string key_, problem_;
  size_t nodes_ = 0;
};

}  // namespace

json::value parse_body(std::string_view text, const JsonLimits& limits) {
  json::parse_options options;
  options.max_depth = limits.depth;
  json::basic_parser<StrictHandler> parser(options, limits);
  Code ec;
  const size_t used = parser.write_some(false, text.data(), text.size(), ec);
  if (!ec && used < text.size()) ec = json::error::extra_data;
  if (!ec && !parser.done()) ec = json::error::incomplete;
  if (!ec) return parser.handler().release();
  const std::string& problem = parser.handler().problem();
  throw bad_request("invalid_json", "",
                    fmt::format("the body is not the JSON that was wanted: {} near byte {}",
                                problem.empty() ? ec.message() : problem, used));
}

}  // namespace idefics::openai
