#include "server/openai/sampling_fields.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <climits>

#include "server/openai/api_error.h"

namespace idefics::openai {

namespace {

constexpr int kMaxN = 8, kMaxStops = 16, kMaxBiases = 1024, kMaxStopIds = 1024;
constexpr size_t kMaxStopBytes = 1024;

// Fields that other servers know and whose wish cannot be met here. To ignore one would give another answer than was
// asked for; the values under which nothing is asked for are let through.
struct Unsupported {
  std::string_view key, why;
};
constexpr std::array kUnsupported = {
    Unsupported{"chat_template", "the template is the model's"},
    Unsupported{"chat_template_kwargs", "the template has no parameters that a request may set"},
    Unsupported{"n_discard", "it is a knob of another engine"},
    Unsupported{"tools", "the model calls no tools"},
    Unsupported{"functions", "the model calls no functions"},
    Unsupported{"audio", "the model does not speak"},
    Unsupported{"documents", "the template has no documents"},
    Unsupported{"use_beam_search", "there is no beam search"},
    Unsupported{"bad_words", "words cannot be forbidden; logit_bias forbids tokens"},
    Unsupported{"allowed_token_ids", "use logit_bias"},
    Unsupported{"logits_processors", "requests bring no code"},
    Unsupported{"truncate_prompt_tokens", "prompts are not truncated"},
    Unsupported{"prompt_embeds", "prompts are texts or token ids"},
    Unsupported{"lora_request", "there are no adapters"},
    Unsupported{"kv_transfer_params", "caches are not moved between servers"},
    Unsupported{"echo", "the prompt is not repeated"},
    Unsupported{"suffix", "the model does not fill in the middle"},
};

bool asks_for_nothing(const json::value& value) {
  return value.is_null() || value == json::value(false) || (value.is_array() && value.get_array().empty()) ||
         (value.is_object() && value.get_object().empty()) || (value.is_string() && value.get_string().empty());
}

void refuse_unsupported(const Fields& body) {
  for (const auto& [key, why] : kUnsupported) {
    const json::value* value = body.raw().if_contains(key);
    if (value != nullptr && !asks_for_nothing(*value))
      throw unsupported(key, fmt::format("{} is not supported: {}", key, why));
  }
}

template <typename T, typename V>
void set(T& parameter, const std::optional<V>& given) {
  if (given) parameter = static_cast<T>(*given);
}

void read_stop(const Fields& body, SamplingParams& sampling) {
  const json::value* value = body.find("stop");
  if (value == nullptr) return;
  if (value->is_string()) {
    sampling.stop = {std::string(value->get_string())};
  } else {
    const json::array* list = body.find_array("stop", kMaxStops);
    for (size_t i = 0; i < list->size(); ++i) {
      if (!(*list)[i].is_string()) refuse_value(fmt::format("stop[{}]", i), (*list)[i], "a string");
      sampling.stop.emplace_back((*list)[i].get_string());
    }
  }
  for (const std::string& text : sampling.stop) {
    if (text.empty() || text.size() > kMaxStopBytes)
      throw invalid_value("stop",
                          fmt::format("stop: a string of {} bytes, wanted 1 to {}", text.size(), kMaxStopBytes));
  }
}

void read_logit_bias(const Fields& body, int vocab_size, SamplingParams& sampling) {
  const std::optional<Fields> biases = body.find_object("logit_bias");
  if (!biases) return;
  if (biases->raw().size() > kMaxBiases)
    throw invalid_value("logit_bias",
                        fmt::format("logit_bias has {} tokens, wanted at most {}", biases->raw().size(), kMaxBiases));
  for (const auto& member : biases->raw()) {
    const std::string key(member.key());
    int32_t id = -1;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
    if (error != std::errc() || end != key.data() + key.size() || id < 0 || id >= vocab_size)
      throw invalid_value("logit_bias", fmt::format("logit_bias: the key \"{}\" is no token id, wanted 0 to {}",
                                                    key.substr(0, 40), vocab_size - 1));
    if (const std::optional<double> bias = biases->find_number(key, -100, 100))
      sampling.logit_bias.emplace_back(id, *bias);
  }
}

void read_sampling(const Fields& body, const ParseContext& context, SamplingParams& sampling) {
  set(sampling.temperature, body.find_number("temperature", 0, 2));
  set(sampling.top_k, body.find_int("top_k", -1, INT_MAX));
  sampling.top_k = std::max(sampling.top_k, 0);
  set(sampling.top_p, body.find_number("top_p", 1e-9, 1));
  set(sampling.min_p, body.find_number("min_p", 0, 1));
  set(sampling.repetition_penalty, body.find_number("repetition_penalty", 0.01, 10));
  set(sampling.presence_penalty, body.find_number("presence_penalty", -2, 2));
  set(sampling.frequency_penalty, body.find_number("frequency_penalty", -2, 2));
  set(sampling.no_repeat_ngram_size, body.find_int("no_repeat_ngram_size", 0, INT_MAX));
  set(sampling.min_tokens, body.find_int("min_tokens", 0, INT_MAX));
  if (const auto seed = body.find_int("seed", INT64_MIN, INT64_MAX)) sampling.seed = static_cast<uint64_t>(*seed);
  sampling.ignore_eos = body.find_bool("ignore_eos").value_or(false);
  set(sampling.stop_token_ids, body.find_ids("stop_token_ids", kMaxStopIds, context.vocab_size - 1));
  read_stop(body, sampling);
  read_logit_bias(body, context.vocab_size, sampling);
  set(sampling.max_tokens, body.find_int("max_tokens", 1, INT_MAX));
  set(sampling.max_tokens, body.find_int("max_completion_tokens", 1, INT_MAX));
  if (sampling.max_tokens > 0 && sampling.min_tokens > sampling.max_tokens)
    throw invalid_value("min_tokens", fmt::format("min_tokens is {}, wanted at most max_tokens, {}",
                                                  sampling.min_tokens, sampling.max_tokens));
}

void read_stream(const Fields& body, GenerationRequest& request) {
  request.stream = body.find_bool("stream").value_or(false);
  const std::optional<Fields> options = body.find_object("stream_options");
  if (!options) return;
  if (!request.stream) throw invalid_value("stream_options", "stream_options is only for \"stream\": true");
  request.include_usage = options->find_bool("include_usage").value_or(false);
  request.include_progress = options->find_bool("include_progress").value_or(false);
}

OutputConstraint::Type constraint_type(const Fields& wish, std::string_view key, const json::value& value) {
  using Type = OutputConstraint::Type;
  if (key == "json" || key == "guided_json") {
    if (!value.is_object() && !value.is_string()) wish.refuse(key, value, "a JSON schema");
    return Type::kJsonSchema;
  }
  if (key == "choice" || key == "guided_choice") {
    const json::array* choices = wish.find_array(key, 1024);
    if (choices->empty() || !std::all_of(choices->begin(), choices->end(), [](const auto& c) { return c.is_string(); }))
      wish.refuse(key, value, "an array of strings");
    return Type::kChoice;
  }
  if (!value.is_string()) wish.refuse(key, value, "a string");
  return key == "regex" || key == "guided_regex" ? Type::kRegex : Type::kGrammar;
}

// One of several fields that ask for the same.
void read_one_of(const Fields& wish, std::span<const std::string_view> keys, std::optional<OutputConstraint>& out) {
  for (const std::string_view key : keys) {
    const json::value* value = wish.find(key);
    if (value == nullptr) continue;
    if (out)
      throw invalid_value(wish.path(key), fmt::format("{} and {} both say what the answer must look like; give one",
                                                      out->param, wish.path(key)));
    out = OutputConstraint{constraint_type(wish, key, *value), wish.path(key), *value};
  }
}

void read_response_format(const Fields& body, std::optional<OutputConstraint>& out) {
  using Type = OutputConstraint::Type;
  const std::optional<Fields> format = body.find_object("response_format");
  if (!format) return;
  const std::string type = format->find_string("type", 64).value_or("");
  if (type == "text") return;
  if (type == "json_object") {
    out = OutputConstraint{Type::kJsonObject, "response_format", nullptr};
  } else if (type == "json_schema") {
    const std::optional<Fields> wrapper = format->find_object("json_schema");
    const json::value* schema = wrapper ? wrapper->find("schema") : nullptr;
    if (schema == nullptr || !schema->is_object())
      throw invalid_value("response_format.json_schema.schema",
                          "response_format.json_schema.schema is missing, wanted a JSON schema");
    out = OutputConstraint{Type::kJsonSchema, "response_format.json_schema.schema", *schema};
  } else {
    throw invalid_value("response_format.type",
                        "response_format.type is unknown, wanted \"text\", \"json_object\" or \"json_schema\"");
  }
}

StructuredOutput to_engine(const OutputConstraint& constraint) {
  using Type = OutputConstraint::Type;
  using Kind = StructuredOutput::Kind;
  const json::value& value = constraint.value;
  const auto text = [&] { return value.is_string() ? std::string(value.get_string()) : json::serialize(value); };
  switch (constraint.type) {
    case Type::kJsonObject: return {.kind = Kind::kJsonObject};
    case Type::kJsonSchema: return {.kind = Kind::kJsonSchema, .text = text()};
    case Type::kRegex: return {.kind = Kind::kRegex, .text = text()};
    case Type::kGrammar: return {.kind = Kind::kGrammar, .text = text()};
    case Type::kChoice: break;
  }
  StructuredOutput out{.kind = Kind::kChoice};
  for (const json::value& choice : value.get_array()) out.choices.emplace_back(choice.get_string());
  return out;
}

void read_constraint(const Fields& body, GenerationRequest& request) {
  static constexpr std::array<std::string_view, 4> kWishes = {"json", "regex", "choice", "grammar"};
  static constexpr std::array<std::string_view, 4> kGuided = {"guided_json", "guided_regex", "guided_choice",
                                                              "guided_grammar"};
  read_response_format(body, request.constraint);
  if (const std::optional<Fields> wishes = body.find_object("structured_outputs"))
    read_one_of(*wishes, kWishes, request.constraint);
  read_one_of(body, kGuided, request.constraint);
  if (request.constraint) request.engine.structured_output = to_engine(*request.constraint);
}

}  // namespace

std::string read_model(const Fields& body, const ParseContext& context) {
  const std::optional<std::string> name = body.find_string("model", 512);
  if (!name) return context.model_names.front();
  if (std::find(context.model_names.begin(), context.model_names.end(), *name) == context.model_names.end()) {
    throw ApiError(
        404, "invalid_request_error", "model_not_found", "model",
        fmt::format("there is no model \"{}\" here, but \"{}\"", name->substr(0, 100), context.model_names.front()));
  }
  return *name;
}

void read_common_fields(const Fields& body, const ParseContext& context, GenerationRequest& request) {
  refuse_unsupported(body);
  request.model = read_model(body, context);
  request.engine.sampling = context.sampling;
  read_sampling(body, context, request.engine.sampling);
  set(request.engine.n, body.find_int("n", 1, kMaxN));
  if (const auto best = body.find_int("best_of", 1, kMaxN); best && *best != request.engine.n)
    throw unsupported("best_of", "best_of is not supported but when it equals n");
  set(request.engine.prompt_logprobs, body.find_int("prompt_logprobs", 0, 20));
  request.engine.skip_special_tokens = body.find_bool("skip_special_tokens");
  request.engine.include_stop_str_in_output = body.find_bool("include_stop_str_in_output").value_or(false);
  request.engine.cache_salt = body.find_string("cache_salt", 512).value_or("");
  body.find_int("priority", INT_MIN, INT_MAX);  // all requests are alike: first come, first served
  request.request_id = body.find_string("request_id", 128);
  read_stream(body, request);
  read_constraint(body, request);
}

}  // namespace idefics::openai
