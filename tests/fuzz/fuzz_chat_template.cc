// Any bytes as a chat template, rendered over a fixed conversation. Errors are fine; crashes, leaks, hangs and broken
// ranges are not.
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "base/utf8.h"
#include "text/chat_template.h"

namespace {

const idefics::json::array& messages() {
  static const idefics::json::value parsed = idefics::parse_json(
      R"([{"role":"system","content":"Be kind. "},
          {"role":"user","content":[{"type":"image"},{"type":"text","text":"na\u00efve <image>\n"}]},
          {"role":"assistant","content":null,"reasoning":"r","tool_calls":[{"function":{"name":"f","arguments":{"x":1.5}}}]},
          {"role":"tool","content":"42"}])",
      "messages");
  return parsed.get_array();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view source(reinterpret_cast<const char*>(data), size);
  idefics::ChatOptions options;
  options.add_generation_prompt = true;
  options.variables = {{"bos_token", "<s>"}, {"tools", idefics::json::array{1, "t", nullptr}}, {"n", 7}};
  options.environment.limits.steps = 20'000;
  options.environment.limits.memory_bytes = 4 << 20;
  options.environment.limits.time = std::chrono::milliseconds(200);
  options.environment.now = [] { return idefics::ChatTemplate::CivilTime{2026, 1, 2, 3, 4, 5, 6}; };
  try {
    const auto chat = idefics::ChatTemplate::parse(source, "fuzz");
    const auto rendered = idefics::render_chat(chat, messages(), options);
    IDEFICS_CHECK(idefics::is_utf8(rendered.text));
    size_t at = 0;
    for (const idefics::TextRange& range : rendered.untrusted) {
      IDEFICS_CHECK(range.begin >= at && range.begin < range.end && range.end <= rendered.text.size());
      at = range.end;
    }
  } catch (const idefics::Error&) {
  }
  return 0;
}
