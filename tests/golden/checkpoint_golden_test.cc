// The recorded checkpoints open, hold what their config.json needs, and say of themselves what was recorded.
#include "checkpoint/checkpoint.h"
#include "checkpoint/generation_config.h"
#include "checkpoint/processor_files.h"
#include "golden.h"
#include "idefics/config.h"

namespace idefics {
namespace {

struct Opened {
  HuggingFaceConfig hf;
  Idefics3Config config;
  Checkpoint checkpoint;
};

Opened open(const std::filesystem::path& folder) {
  HuggingFaceConfig hf = HuggingFaceConfig::load(folder);
  PipelineConfig pipeline;
  pipeline.model.huggingface_config = hf;
  Idefics3Config config = Idefics3Config::initialize(pipeline);
  Checkpoint checkpoint = Checkpoint::open(folder);
  const std::vector<std::string> unused = checkpoint.verify(config);
  EXPECT_TRUE(unused.empty()) << folder << ": " << unused.size() << " unused tensors, e.g. " << unused.front();
  config.finalize(hf, checkpoint.state_dict(), ReturnLogits::kLastToken);
  ThreadPool pool(2);
  EXPECT_TRUE(checkpoint.find_nonfinite(pool).empty()) << folder;
  return {std::move(hf), std::move(config), std::move(checkpoint)};
}

// What index.json records, as read from the folder.
json::object facts(const Opened& o, const ProcessorConfig& processor) {
  const Llama3Config& text = o.config.text_config;
  const Idefics3VisionConfig& vision = o.config.vision_config;
  return {{"embedding_rows", text.vocab_size},
          {"N", vision.image_size / vision.patch_size},
          {"S", o.config.image_seq_len()},
          {"M", processor.image.max_image_size},
          {"L", processor.image.longest_edge},
          {"image_token_id", o.config.image_token_id},
          {"vision_head_dim", vision.head_dim},
          {"text_heads", json::array{text.num_attention_heads, text.num_key_value_heads}},
          {"head_dim", text.head_dim},
          {"tied", text.tie_word_embeddings},
          {"dtype", dtype_name(text.norm_dtype)}};
}

// What differs between the folder and its record; empty when nothing does.
std::string checkpoint_problem(const std::filesystem::path& folder, const json::object& info) {
  const Opened opened = open(folder);
  const ProcessorConfig processor = load_processor_config(folder);
  check_processor_config(processor, opened.config);
  std::string problem;
  for (const auto& [key, value] : facts(opened, processor)) {
    if (info.at(key) == value) continue;
    problem +=
        std::string(key) + ": wanted " + json::serialize(info.at(key)) + ", found " + json::serialize(value) + "; ";
  }
  if (!find_chat_template(folder)) problem += "no chat template; ";
  if (!load_tokenizer_config(folder).eos_token) problem += "no eos token; ";
  if (GenerationConfig::load(folder).eos_token_ids.empty()) problem += "no eos id; ";
  return problem;
}

TEST(CheckpointGolden, recorded_checkpoints) {
  golden::Family family("checkpoints");
  const json::value index = parse_json(read_file(golden::data("checkpoints/index.json"), 1 << 20), "index.json");
  for (const auto& [name, info] : index.get_object()) {
    const std::string problem = checkpoint_problem(golden::data("checkpoints") / std::string(name), info.get_object());
    family.check(problem.empty(), std::string(name) + ": " + problem);
  }
}

TEST(CheckpointGolden, tiny_cards) {
  const std::filesystem::path folder = std::filesystem::path(IDEFICS_SOURCE_DIR) / "models/tiny-cards";
  const Opened opened = open(folder);
  check_processor_config(load_processor_config(folder), opened.config);
  EXPECT_TRUE(opened.config.text_config.tie_word_embeddings);
  EXPECT_EQ(opened.config.image_seq_len(), 16);
}

}  // namespace
}  // namespace idefics
