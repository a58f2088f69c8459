// What a server may send to idefics bench serve as a stream: in pieces whose size the first byte says.
#include <algorithm>
#include <cstdint>
#include <cstdlib>

#include "load/answer_reader.h"

using idefics::load::AnswerReader;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  AnswerReader whole, pieces;
  whole.push(bytes, {});
  const size_t step = 1 + data[0];
  for (size_t at = 0; at < bytes.size(); at += step) pieces.push(bytes.substr(at, step), {});
  // However it is cut, it is the same answer.
  if (whole.text() != pieces.text() || whole.problem() != pieces.problem() || whole.tokens() != pieces.tokens() ||
      whole.pieces().size() != pieces.pieces().size())
    std::abort();
  return 0;
}
