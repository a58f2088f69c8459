#include "cli/examination.h"

#include <fmt/format.h>

#include <functional>
#include <optional>

#include "base/files.h"
#include "base/thread_pool.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/generation_config.h"
#include "checkpoint/processor_files.h"
#include "idefics/error.h"
#include "idefics/processor.h"
#include "image/tiles.h"
#include "text/tokenizer.h"

namespace idefics::cli {

namespace {

// What a check has to say when nothing threw.
struct Result {
  std::string message;
  std::string warning_mend = "";  // not empty: the message is a warning
};

class Examination {
 public:
  explicit Examination(const std::filesystem::path& folder) : folder_(folder) {}

  std::vector<Finding> run() {
    const bool config =
        check("config.json", "fetch it again from where the model came from", [&] { return read_config(); });
    const bool generation =
        check("generation_config.json", "fetch it again, or delete it", [&] { return read_generation_config(); });
    const bool processor = check("processor files", "fetch preprocessor_config.json and processor_config.json again",
                                 [&] { return read_processor(); });
    const bool tokenizer = check("tokenizer.json", "fetch it again", [&] { return read_tokenizer(); });
    const bool words = check("tokenizer_config.json", "fetch it again", [&] { return read_tokenizer_config(); });
    const bool weights =
        check("weights", "fetch the .safetensors files and their index again", [&] { return open_weights(); });
    check_if(config && weights, "tensors", "use the config.json that belongs to these weights",
             [&] { return verify_tensors(); });
    check_if(weights, "values", "fetch the weights again; --allow-nonfinite loads them all the same",
             [&] { return scan_values(); });
    check_if(config && processor, "processor and model", "use the processor files that belong to this config.json",
             [&] { return fit_processor(); });
    check_if(config && tokenizer, "image token", "use the tokenizer.json that belongs to this config.json",
             [&] { return match_image_token(); });
    check_if(config && tokenizer && generation, "token ids", "use files of one and the same model",
             [&] { return check_ids(); });
    check_if(config && generation && processor && tokenizer && words, "chat template",
             "fetch chat_template.jinja or chat_template.json again", [&] { return render_sample(); });
    return std::move(findings_);
  }

 private:
  bool check(const std::string& subject, const std::string& mend, const std::function<Result()>& look) {
    try {
      Result result = look();
      const Verdict verdict = result.warning_mend.empty() ? Verdict::kOk : Verdict::kWarning;
      findings_.push_back({subject, verdict, std::move(result.message), std::move(result.warning_mend)});
      return true;
    } catch (const Error& e) {
      findings_.push_back({subject, Verdict::kError, e.what(), mend});
      return false;
    }
  }

  void check_if(bool possible, const std::string& subject, const std::string& mend,
                const std::function<Result()>& look) {
    if (possible) {
      check(subject, mend, look);
    } else {
      findings_.push_back({subject, Verdict::kSkipped, "cannot be checked before the errors above are mended", ""});
    }
  }

  bool exists(const char* name) const {
    std::error_code error;
    return std::filesystem::exists(folder_ / name, error);
  }

  Result read_config() {
    huggingface_config_ = HuggingFaceConfig::load(folder_);
    PipelineConfig pipeline;
    pipeline.model.model_path = folder_;
    pipeline.model.huggingface_config = huggingface_config_;
    config_ = Idefics3Config::initialize(pipeline);
    return {fmt::format("{}, {} vision and {} text layers, context of {} tokens",
                        architecture_name(config_->architecture), config_->vision_config.num_hidden_layers,
                        config_->text_config.num_hidden_layers, config_->get_max_seq_len())};
  }

  Result read_generation_config() {
    generation_ = GenerationConfig::load(folder_);
    if (!exists("generation_config.json"))
      return {"is missing: config.json and the tokenizer say where answers end", "fetch it, if the model has one"};
    return {generation_.do_sample.value_or(false) ? "asks for sampling" : "asks for greedy choice"};
  }

  Result read_processor() {
    processor_ = load_processor_config(folder_);
    return {fmt::format("pictures of {} pixels, {} tiles of {}, {} tokens each", processor_->image.longest_edge,
                        processor_->image.do_image_splitting ? "cut into" : "as single",
                        processor_->image.max_image_size, processor_->image_seq_len)};
  }

  Result read_tokenizer() {
    const std::filesystem::path file = folder_ / "tokenizer.json";
    tokenizer_ = Tokenizer::parse(read_file(file, Tokenizer::kMaxFileBytes, ErrorCode::kBadModel), file.string());
    return {fmt::format("{} token ids", tokenizer_->vocab_size())};
  }

  Result read_tokenizer_config() {
    const TokenizerConfig config = load_tokenizer_config(folder_);
    if (!exists("tokenizer_config.json"))
      return {"is missing: templates that use bos_token or eos_token get none", "fetch it"};
    return {config.eos_token ? fmt::format("eos_token is {}", *config.eos_token) : "names no eos_token"};
  }

  Result open_weights() {
    checkpoint_.emplace(Checkpoint::open(folder_));
    const Checkpoint::Totals totals = checkpoint_->totals();
    std::string formats;
    for (const auto& [dtype, bytes] : totals.bytes)
      formats += fmt::format(", {} bytes of {}", bytes, stored_dtype_name(dtype));
    return {fmt::format("{} tensors{}", totals.tensors, formats)};
  }

  Result verify_tensors() {
    const std::vector<std::string> unused = checkpoint_->verify(*config_);
    if (unused.empty()) return {"all are there with the shapes that config.json asks for"};
    return {fmt::format("all are there, and {} that nothing needs, the first is {}", unused.size(), unused.front()),
            "nothing, if the model came like this; they are not loaded"};
  }

  Result scan_values() {
    ThreadPool pool(num_available_cpus());
    const std::vector<std::string> bad = checkpoint_->find_nonfinite(pool);
    if (bad.empty()) return {"no NaN and no Inf"};
    throw Error(ErrorCode::kBadModel,
                fmt::format("{} tensors hold NaN or Inf, the first is {}", bad.size(), bad.front()));
  }

  Result fit_processor() {
    check_processor_config(*processor_, *config_);
    return {fmt::format("{} tokens a tile on both sides", config_->image_seq_len())};
  }

  Result match_image_token() {
    const auto id = tokenizer_->find_token("<image>");
    const bool special = id && tokenizer_->is_special(*id);
    if (id == config_->image_token_id && special) return {fmt::format("<image> is {}", *id)};
    const std::string found = !id ? "no token at all" : std::to_string(*id) + (special ? "" : ", which is not special");
    throw Error(ErrorCode::kBadModel, fmt::format("config.json has image_token_id {}, tokenizer.json has <image> as {}",
                                                  config_->image_token_id, found));
  }

  // Ids beyond the embedding are refused in prompts and never come out, so they are no error.
  Result check_ids() {
    const int32_t rows = config_->text_config.vocab_size;
    std::vector<int32_t> ends = generation_.eos_token_ids;
    if (ends.empty()) ends = huggingface_config_->eos_token_ids;
    for (const int32_t id : ends) {
      if (id >= rows)
        return {fmt::format("an answer ends at {}, but the model has {} embeddings", id, rows), "correct eos_token_id"};
    }
    if (tokenizer_->vocab_size() > rows) {
      return {
          fmt::format("tokenizer.json goes up to {}, the model has {} embeddings", tokenizer_->vocab_size() - 1, rows),
          "nothing, if the model came like this; prompts with such tokens are refused"};
    }
    return {fmt::format("all are below {}", rows)};
  }

  // Two turns and a picture, the whole way to token ids.
  Result render_sample() {
    constexpr int kWidth = 48, kHeight = 32;
    const std::vector<uint8_t> gray(size_t{3} * kWidth * kHeight, 128);
    const Message question{
        "user",
        {ContentPart::of_image(encode_png(gray, kWidth, kHeight)), ContentPart::of_text("What is in this picture?")}};
    const Message answer{"assistant", {ContentPart::of_text("Nothing but gray.")}};
    const Message more{"user", {ContentPart::of_text("Why?")}};
    const Processor processor = Processor::load(folder_);
    const Prompt prompt = processor.prompt(std::vector<Message>{question, answer, more});
    const std::string said =
        fmt::format("a conversation of two turns and a picture becomes {} tokens", prompt.ids.size());
    if (!processor.stop_ids().empty()) return {said};
    return {said + ", but no token ends an answer", "set eos_token_id in generation_config.json"};
  }

  std::filesystem::path folder_;
  std::vector<Finding> findings_;
  std::optional<HuggingFaceConfig> huggingface_config_;
  std::optional<Idefics3Config> config_;
  GenerationConfig generation_;
  std::optional<ProcessorConfig> processor_;
  std::optional<Tokenizer> tokenizer_;
  std::optional<Checkpoint> checkpoint_;
};

}  // namespace

std::string_view verdict_name(Verdict verdict) {
  switch (verdict) {
    case Verdict::kOk: return "ok";
    case Verdict::kWarning: return "warning";
    case Verdict::kError: return "error";
    case Verdict::kSkipped: return "skipped";
  }
  return "";
}

std::vector<Finding> examine(const std::filesystem::path& folder) { return Examination(folder).run(); }

}  // namespace idefics::cli
