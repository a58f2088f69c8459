// The body of a request: strict JSON, then the fields of both kinds of generation and of the tokenizer's routes.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "server/openai/api_error.h"
#include "server/openai/json_body.h"
#include "server/openai/requests.h"

namespace {

using namespace idefics;
using namespace idefics::openai;

// A refusal is a status of 400 or 404 and an error of at most 4 KiB.
template <typename Parse>
void attempt(const Parse& parse) {
  try {
    parse();
  } catch (const ApiError& e) {
    if (e.status != 400 && e.status != 404) std::abort();
    if (json::serialize(to_json(e)).size() > 4096) std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const ParseContext context{.model_names = {"tiny"}, .sampling = {}, .vocab_size = 1000, .media = {}};
  attempt([&] {
    const json::value body = parse_body({reinterpret_cast<const char*>(data), size});
    attempt([&] { parse_chat_request(body, context); });
    attempt([&] { parse_completion_request(body, context); });
    attempt([&] { parse_tokenize_request(body, context); });
    attempt([&] { parse_detokenize_request(body, context); });
  });
  return 0;
}
