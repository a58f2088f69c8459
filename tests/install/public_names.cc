// Uses each function that include/idefics declares, so that one that libidefics.so hides is an error of the linker.
// Only linked: the calls are never made.
#include <idefics/config.h>
#include <idefics/context.h>
#include <idefics/engine.h>
#include <idefics/error.h>
#include <idefics/inputs.h>
#include <idefics/model.h>
#include <idefics/processor.h>
#include <idefics/processor_config.h>
#include <idefics/sampling.h>
#include <idefics/tensor.h>

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
  engine.cancel(engine.submit(Request{}, [](Event&&) {}));
  EventStream stream = engine.submit(Request{});
  EventStream other = std::move(stream);
  stream = std::move(other);
  stream.id();
  stream.next();
  stream.ended();
  engine.stats();
  engine.skips_special_tokens();
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

void use_tensor() {
  Tensor tensor = Tensor::zeros(TensorDType::kF32, {1});
  tensor = Tensor::of<float>({1}, {1});
  tensor = Tensor::borrow(TensorDType::kF32, {1}, tensor.data());
  tensor.describe();
  tensor.as<float>();
  tensor.as_mutable<float>();
  tensor_dtype_name(tensor.dtype());
}

void use_context() {
  TokenBuffer tokens({1, 2, 3});
  tokens.skip_processing(1);
  tokens.rewind_processing(1);
  tokens.chunk(1);
  tokens.advance_chunk();
  tokens.advance_with_token(4);
  const Idefics3Tokenizer tokenizer = Idefics3Tokenizer::load("models/x");
  TextAndVisionContext context = tokenizer.new_context({});
  context.next_images();
  context.needs_vision_encoding();
  context.update(1);
  context.check();
  tokenizer.decode(tokenizer.encode(""));
  tokenizer.processor();
}

void use_model() {
  InferenceSession session(1);
  session.num_threads();
  session.kernels();
  const PipelineConfig pipeline;
  Idefics3Model model = Idefics3Model::load("models/x");
  model = Idefics3Model::load(pipeline, session, pipeline.model.devices, pipeline.model.kv_cache, "models/x");
  Idefics3Model::calculate_max_seq_len(pipeline, HuggingFaceConfig());
  model.load_model(session).first.name();
  const TextAndVisionContext context;
  PagedKVCacheManager kv(model.config().get_kv_params(), 1);
  PagedKVCacheManager moved = std::move(kv);
  kv = std::move(moved);
  kv.claim(context);
  kv.contains(context);
  kv.alloc(context);
  const Batch batch = {&context};
  const KVCacheInputs cache = kv.runtime_inputs(batch);
  kv.release(context);
  kv.total_num_pages();
  kv.num_free_pages();
  kv.bytes_per_page();
  const Idefics3Inputs inputs = model.prepare_initial_token_inputs({&batch, 1}, &cache);
  model.execute(model.prepare_next_token_inputs(Tensor(), inputs));
  model.vision_model()(cache.flatten());
  model.language_model().execute({});
  model.session();
  remove_padding_frames(Tensor(), Architecture::kIdefics3, DType::kF32);
}

int main() {
  void (*const uses[])() = {use_config, use_processor, use_engine, use_tensor, use_context, use_model};
  const Error error = Error(ErrorCode::kUsage, "wanted").with_context("here");
  return code_name(error.code()) == "usage" && exit_code(error.code()) == 2 && uses[0] != nullptr ? 0 : 1;
}
