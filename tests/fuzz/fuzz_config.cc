// Any bytes as each of the small JSON files of a model folder; what config.json says is then checked and used.
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "checkpoint/generation_config.h"
#include "checkpoint/processor_files.h"
#include "checkpoint/rope.h"
#include "idefics/config.h"
#include "idefics/error.h"

namespace {

template <typename F>
void quietly(F&& f) {
  try {
    f();
  } catch (const idefics::Error&) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace idefics;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  quietly([&] {
    PipelineConfig pipeline;
    pipeline.model.huggingface_config = HuggingFaceConfig::parse(text, "config.json");
    const Idefics3Config config = Idefics3Config::initialize(pipeline);
    IDEFICS_CHECK(config.image_seq_len() >= 1 && config.get_max_seq_len() >= 1);
    IDEFICS_CHECK(config.image_token_id < config.text_config.vocab_size);
    for (const float inv : rope_inv_freq(config.text_config)) IDEFICS_CHECK(inv > 0 && inv < 1e6f);
  });
  quietly([&] { GenerationConfig::parse(text, "generation_config.json"); });
  quietly([&] { parse_processor_config(text, std::nullopt, "folder"); });
  quietly([&] { parse_processor_config(std::nullopt, text, "folder"); });
  return 0;
}
