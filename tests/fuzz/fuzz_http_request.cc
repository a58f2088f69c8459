// The bytes of a connection: however they are cut, the same requests come out, and nothing is kept beyond the limits.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "server/http/request_parser.h"

namespace {

using namespace idefics::http;
using State = RequestParser::State;

struct Result {
  State state = State::kHead;
  std::string method, path, body;
  size_t used = 0;
};

Result parse(std::string_view bytes, size_t step) {
  Limits limits;
  limits.head_bytes = 1024;
  limits.body_bytes = 4096;
  RequestParser parser(limits);
  std::string waiting;
  Result result;
  for (size_t at = 0; at < bytes.size(); at += step) {
    waiting += bytes.substr(at, step);
    for (State before = State::kFailed; before != parser.state();) {
      before = parser.state();
      if (before != State::kHead && before != State::kBody) break;
      const size_t used = parser.push(waiting);
      waiting.erase(0, used);
      result.used += used;
    }
    if (parser.state() == State::kDone || parser.state() == State::kFailed) break;
    if (waiting.size() > limits.head_bytes + step) std::abort();
  }
  result.state = parser.state();
  if (parser.request().body.size() > limits.body_bytes) std::abort();
  if (result.state != State::kDone) return result;
  const Request request = parser.take();
  result.method = request.method;
  result.path = request.path;
  result.body = request.body;
  return result;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const Result whole = parse(bytes, size + 1), single = parse(bytes, 1), seven = parse(bytes, 7);
  for (const Result& other : {single, seven}) {
    if ((whole.state == State::kDone) != (other.state == State::kDone)) std::abort();
    if (whole.state != State::kDone) continue;
    if (whole.method != other.method || whole.path != other.path || whole.body != other.body ||
        whole.used != other.used)
      std::abort();
  }
  return 0;
}
