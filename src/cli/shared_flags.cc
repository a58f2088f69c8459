#include "cli/shared_flags.h"

#include <fmt/format.h>

#include <algorithm>
#include <climits>
#include <filesystem>

#include "base/files.h"
#include "cli/pictures.h"
#include "idefics/error.h"

namespace idefics::cli {

namespace {

constexpr uint64_t kMaxPromptBytes = uint64_t{1} << 24;

[[noreturn]] void refuse(const std::string& message) { throw Error(ErrorCode::kUsage, message); }

std::pair<int32_t, double> parse_bias(const std::string& text) {
  const size_t middle = text.find('=');
  if (middle != std::string::npos) {
    const std::optional<int64_t> id = parse_whole(std::string_view(text).substr(0, middle));
    const std::optional<double> value = parse_number(std::string_view(text).substr(middle + 1));
    if (id && *id >= 0 && *id <= INT32_MAX && value) return {static_cast<int32_t>(*id), *value};
  }
  refuse(fmt::format("--logit-bias is \"{}\", wanted a token id and a number, like 42=-1.5", text));
}

int32_t parse_token_id(const std::string& text) {
  const std::optional<int64_t> id = parse_whole(text);
  if (!id || *id < 0 || *id > INT32_MAX) refuse(fmt::format("--stop-token-id is \"{}\", wanted a token id", text));
  return static_cast<int32_t>(*id);
}

template <typename T>
void set(T& parameter, const std::optional<T>& given) {
  if (given) parameter = *given;
}

// A text from standard input ends with the line end of the shell's echo, which nobody means.
std::string read_prompt_from_stdin() {
  std::string text = read_stdin(kMaxPromptBytes);
  if (text.ends_with('\n')) text.pop_back();
  return text;
}

}  // namespace

void ModelArgument::describe(Verb& verb) {
  verb.argument("MODEL", "Folder of a checkpoint, with config.json, tokenizer.json, model.safetensors", folder);
}

void ModelArgument::require() const {
  std::error_code error;
  if (std::filesystem::is_directory(folder, error)) return;
  throw Error(ErrorCode::kBadModel,
              fmt::format("{}: no such model folder, wanted one with config.json, tokenizer.json and model.safetensors",
                          folder));
}

void EngineFlags::describe(Verb& verb) {
  verb.group("Model");
  verb.text("--dtype", "auto|f32|bf16|int8|q8|q4",
            "Number format; auto: as stored. int8: of weights and arithmetic; q8, q4: of weights", dtype);
  verb.text("--kv-cache-dtype", "auto|f32|bf16|q8",
            "Of keys and values; auto: f32 beside f32, else bf16; q8: half of bf16", kv_cache_dtype);
  verb.whole("--threads", "Compute threads; default: the CPUs of this process", 1, 1024, threads);
  verb.length("--max-model-len", "Most tokens of prompt and answer, like 4096 or 4k; default: the model's", 1, 1 << 30,
              max_model_len);
  verb.flag("--allow-nonfinite", "Load weights that hold NaN or Inf", allow_nonfinite);
}

EngineOptions EngineFlags::options() const {
  EngineOptions options;
  if (dtype == "f32") options.dtype = ComputeType::kF32;
  if (dtype == "bf16") options.dtype = ComputeType::kBf16;
  if (dtype == "int8") options.dtype = ComputeType::kInt8;
  if (dtype == "q8") options.dtype = ComputeType::kQ8;
  if (dtype == "q4") options.dtype = ComputeType::kQ4;
  if (kv_cache_dtype == "f32") options.kv_cache_dtype = KvCacheType::kF32;
  if (kv_cache_dtype == "bf16") options.kv_cache_dtype = KvCacheType::kBf16;
  if (kv_cache_dtype == "q8") options.kv_cache_dtype = KvCacheType::kQ8;
  set(options.num_threads, threads);
  options.max_model_len = max_model_len;
  options.allow_nonfinite = allow_nonfinite;
  return options;
}

void ImageFlags::describe(Verb& verb) {
  verb.group("Pictures");
  verb.flag("--no-image-splitting", "One tile for each picture: faster, less detail", no_splitting);
  verb.length("--longest-edge", "Long side in pixels to which pictures are resized before they are cut", 1, 4096,
              longest_edge);
  verb.whole("--max-tiles", "Most tiles of a picture, the overview included", 1, 10000, max_tiles);
}

ImageOptions ImageFlags::options() const {
  ImageOptions options;
  if (no_splitting) options.split = false;
  options.longest_edge = longest_edge;
  options.max_tiles = max_tiles;
  return options;
}

void SamplingFlags::describe(Verb& verb) {
  verb.group("Answer");
  verb.length("--max-tokens", "Most tokens of the answer; 0: as many as the context holds", 0, INT_MAX, max_tokens);
  verb.length("--min-tokens", "Least tokens of the answer", 0, INT_MAX, min_tokens);
  verb.flag("--ignore-eos", "Go on when the model wants to end", ignore_eos);
  verb.texts("--stop", "TEXT", "End the answer before this text", stop);
  verb.texts("--stop-token-id", "N", "End the answer at this token", stop_token_ids);
  verb.flag("--keep-special-tokens", "Show special tokens in the text", keep_special_tokens);
  verb.flag("--skip-special-tokens", "Leave special tokens out of the text, even for models that write DocTags",
            skip_special_tokens);
  verb.group("Sampling");
  verb.number("--temperature", "0: always the likeliest token; higher: more varied", temperature);
  verb.whole("--top-k", "Draw from the K likeliest tokens; 0: off", 0, INT_MAX, top_k);
  verb.number("--top-p", "Draw from the likeliest tokens that together have this probability", top_p);
  verb.number("--min-p", "Draw from tokens with at least this share of the best one's probability", min_p);
  verb.number("--repetition-penalty", "Above 1: make tokens of prompt and answer less likely", repetition_penalty);
  verb.number("--presence-penalty", "Taken once from the logit of every token of the answer", presence_penalty);
  verb.number("--frequency-penalty", "Taken from it for each occurrence", frequency_penalty);
  verb.whole("--no-repeat-ngram-size", "No run of this many tokens comes twice; 0: off", 0, INT_MAX,
             no_repeat_ngram_size);
  verb.texts("--logit-bias", "ID=VALUE", "Add to the logit of a token", logit_bias);
  verb.seed("--seed", "The same seed draws the same answer", seed);
}

SamplingParams SamplingFlags::apply(SamplingParams params) const {
  set(params.max_tokens, max_tokens);
  set(params.min_tokens, min_tokens);
  set(params.top_k, top_k);
  set(params.no_repeat_ngram_size, no_repeat_ngram_size);
  set(params.temperature, temperature);
  set(params.top_p, top_p);
  set(params.min_p, min_p);
  set(params.repetition_penalty, repetition_penalty);
  set(params.presence_penalty, presence_penalty);
  set(params.frequency_penalty, frequency_penalty);
  if (seed) params.seed = seed;
  params.ignore_eos = ignore_eos;
  params.stop = stop;
  for (const std::string& text : logit_bias) params.logit_bias.push_back(parse_bias(text));
  for (const std::string& text : stop_token_ids) params.stop_token_ids.push_back(parse_token_id(text));
  return params;
}

std::optional<bool> SamplingFlags::skip_special() const {
  if (keep_special_tokens && skip_special_tokens)
    refuse("--keep-special-tokens and --skip-special-tokens contradict each other; give one of them");
  if (keep_special_tokens) return false;
  if (skip_special_tokens) return true;
  return std::nullopt;
}

void StructureFlags::describe(Verb& verb) {
  verb.group("Structure");
  verb.text("--json-schema", "FILE", "The answer is JSON that is valid under the schema in this file", json_schema);
  verb.flag("--json-object", "The answer is a JSON object", json_object);
  verb.text("--regex", "EXPRESSION", "The whole answer matches this regular expression", regex);
  verb.texts("--choice", "TEXT", "The answer is this text, or another one that is given so", choices);
  verb.text("--grammar", "FILE", "The answer is a text of the grammar (GBNF) in this file", grammar);
}

std::optional<StructuredOutput> StructureFlags::read() const {
  using Kind = StructuredOutput::Kind;
  const int given = int{json_schema.has_value()} + int{json_object} + int{regex.has_value()} + int{!choices.empty()} +
                    int{grammar.has_value()};
  if (given > 1)
    refuse("--json-schema, --json-object, --regex, --choice and --grammar exclude each other; give one of them");
  constexpr size_t kMostBytes = size_t{1} << 20;
  if (json_schema) return StructuredOutput{.kind = Kind::kJsonSchema, .text = read_file(*json_schema, kMostBytes)};
  if (json_object) return StructuredOutput{.kind = Kind::kJsonObject};
  if (regex) return StructuredOutput{.kind = Kind::kRegex, .text = *regex};
  if (!choices.empty()) return StructuredOutput{.kind = Kind::kChoice, .choices = choices};
  if (grammar) return StructuredOutput{.kind = Kind::kGrammar, .text = read_file(*grammar, kMostBytes)};
  return std::nullopt;
}

void InputFlags::describe(Verb& verb) {
  verb.group("Question");
  verb.text("-p,--prompt", "TEXT", "What to ask; - reads it from standard input", prompt);
  verb.texts("--image", "FILE", "A picture, put before the text; - reads it from standard input", images);
  verb.text("--system", "TEXT", "A system message before the question", system);
  verb.text(
      "--messages", "FILE",
      "A JSON array of {\"role\", \"content\"} instead; content: a string, or parts {\"type\": \"text\", \"text\"} and "
      "{\"type\": \"image\", \"path\"}",
      messages);
}

Conversation InputFlags::read() const {
  if (messages) {
    if (prompt || system || !images.empty())
      refuse("--messages holds the whole conversation; leave out --prompt, --image and --system");
    return read_messages_file(*messages);
  }
  if (!prompt && images.empty()) refuse("nothing to ask, wanted --prompt TEXT, --image FILE or --messages FILE");
  const auto from_stdin = std::count(images.begin(), images.end(), "-") + (prompt == "-" ? 1 : 0);
  if (from_stdin > 1) refuse("only one of --prompt and --image can be read from standard input");
  Conversation conversation;
  if (system) conversation.messages.push_back({"system", {ContentPart::of_text(*system)}});
  Message user{"user", {}};
  for (const std::string& path : images) {
    user.content.push_back(ContentPart::of_image(read_picture(path)));
    conversation.pictures.push_back(path);
  }
  if (prompt) user.content.push_back(ContentPart::of_text(prompt == "-" ? read_prompt_from_stdin() : *prompt));
  conversation.messages.push_back(std::move(user));
  return conversation;
}

}  // namespace idefics::cli
