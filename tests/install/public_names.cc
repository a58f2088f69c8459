// Uses each function that include/idefics declares, so that one that libidefics.so hides is an error of the linker.
// Only linked: the calls are never made.
#include <idefics/config.h>
#include <idefics/engine.h>
#include <idefics/error.h>
#include <idefics/processor.h>
#include <idefics/processor_config.h>
#include <idefics/sampling.h>

#include <vector>

using namespace idefics;

void use_config() {
  architecture_name(Architecture::kIdefics3);
  dtype_name(DType::kF32);
  const HuggingFaceConfig file = HuggingFaceConfig::parse("{}", "config.json");
  PipelineConfig pipeline;
  pipeline.model.huggingface_config = HuggingFaceConfig::load("models/x");
  Idefics3VisionConfig::initialize_from_config(pipeline, file, 64);
  Idefics3Config config = Idefics3Config::initialize(pipeline);
  config.finalize(file, StateDict{}, ReturnLogits::kAll);
  config.image_seq_len();
  config.get_kv_params();
  config.get_max_seq_len();
  Idefics3Config::get_num_layers(file);
  Idefics3Config::calculate_max_seq_len(pipeline, file);
}

void use_processor() {
  Processor processor = Processor::load("models/x");
  Processor moved = std::move(processor);
  processor = std::move(moved);
  const std::vector<Message> messages;
  const std::vector<std::string> images;
  const std::vector<int32_t> ids = processor.tokenize("", true, true);
  std::vector<float> pixels;
  processor.prompt(messages);
  processor.raw_prompt("", images);
  PromptImage image = processor.cut("");
  processor.image_cost(1, 1);
  processor.pixel_values(image.tile(0), image.side, pixels);
  processor.detokenize(ids, true);
  processor.config();
  processor.stop_ids();
  processor.image_token_id();
  processor.vocab_size();
}

void use_engine() {
  Engine engine = Engine::load("models/x", EngineOptions{});
  Engine moved = std::move(engine);
  engine = std::move(moved);
  engine.generate(Request{});
  engine.default_sampling();
  engine.processor();
  engine.config();
  engine.max_model_len();
  engine.kernels();
  engine.dtype();
  engine.memory();
  engine.nonfinite();
  finish_reason_name(FinishReason::kStop);
}

int main() {
  void (*const uses[])() = {use_config, use_processor, use_engine};
  const Error error = Error(ErrorCode::kUsage, "wanted").with_context("here");
  return code_name(error.code()) == "usage" && exit_code(error.code()) == 2 && uses[0] != nullptr ? 0 : 1;
}
