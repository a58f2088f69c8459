// The wire format: every field with every kind of wrong value, and what the right ones mean.
#include "server/openai/requests.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <climits>

#include "server/openai/api_error.h"
#include "server/openai/json_body.h"

namespace idefics::openai {
namespace {

ParseContext context() { return {.model_names = {"tiny", "alias"}, .sampling = {}, .vocab_size = 1000, .media = {}}; }

const std::string kMessages = R"("messages":[{"role":"user","content":"Hi"}])";

GenerationRequest chat(const std::string& fields) {
  return parse_chat_request(parse_body("{" + kMessages + (fields.empty() ? "" : "," + fields) + "}"), context());
}
GenerationRequest completion(const std::string& fields) {
  return parse_completion_request(parse_body("{" + fields + "}"), context());
}

// The refusal of `make`; a failed test when there is none.
template <typename Make>
ApiError refusal(const Make& make, const std::string& where) {
  try {
    make();
  } catch (const ApiError& e) {
    return e;
  } catch (const std::exception& e) {
    ADD_FAILURE() << where << ": another exception: " << e.what();
  }
  ADD_FAILURE() << where << " was accepted";
  return ApiError(0, "", "", "", "");
}

void expect_refused(const std::string& fields, const std::string& param, const std::string& code = "invalid_value") {
  const ApiError error = refusal([&] { chat(fields); }, fields);
  EXPECT_EQ(error.status, code == "model_not_found" ? 404 : 400) << fields;
  EXPECT_EQ(error.code, code) << fields << ": " << error.what();
  EXPECT_EQ(error.param, param) << fields << ": " << error.what();
  EXPECT_LE(json::serialize(to_json(error)).size(), 4096u);
}

struct NumberField {
  std::string name;
  double min, max;
  bool whole;
  std::string more = "";  // fields that it needs beside it
};

const std::vector<NumberField> kNumbers = {
    {"n", 1, 8, true},
    {"best_of", 1, 8, true, R"("n":1)"},
    {"max_tokens", 1, INT_MAX, true},
    {"max_completion_tokens", 1, INT_MAX, true},
    {"min_tokens", 0, INT_MAX, true},
    {"top_logprobs", 0, 20, true, R"("logprobs":true)"},
    {"prompt_logprobs", 0, 20, true},
    {"top_k", -1, INT_MAX, true},
    {"no_repeat_ngram_size", 0, INT_MAX, true},
    {"priority", INT_MIN, INT_MAX, true},
    {"temperature", 0, 2, false},
    {"top_p", 0.000000001, 1, false},
    {"min_p", 0, 1, false},
    {"repetition_penalty", 0.01, 10, false},
    {"presence_penalty", -2, 2, false},
    {"frequency_penalty", -2, 2, false},
};

TEST(Requests, numbers_have_ranges_and_types) {
  for (const NumberField& field : kNumbers) {
    const std::string more = field.more.empty() ? "" : "," + field.more;
    const auto with = [&](const std::string& value) { return fmt::format("\"{}\":{}{}", field.name, value, more); };
    std::vector<std::string> wrong = {"\"1\"",
                                      "\"\"",
                                      "[]",
                                      "[1]",
                                      "{}",
                                      "true",
                                      "false",
                                      "9223372036854775808",
                                      "-9223372036854775809",
                                      "18446744073709551616",
                                      "1e300",
                                      "-1e300"};
    const double step = field.whole ? 1 : 0.25;
    wrong.push_back(fmt::format("{:.6f}", field.min - step));
    wrong.push_back(fmt::format("{:.6f}", field.max + step));
    if (field.whole) {
      wrong.push_back(fmt::format("{:.0f}", field.min - 1));
      wrong.push_back(fmt::format("{:.0f}", field.max + 1));
      wrong.emplace_back("1.5");
      wrong.emplace_back("4294967297");
    }
    for (const std::string& value : wrong) expect_refused(with(value), field.name);
    EXPECT_NO_THROW(chat(with("null"))) << field.name;
    EXPECT_NO_THROW(chat(
        with(fmt::format(fmt::runtime(field.whole ? "{:.0f}" : "{:.9f}"), field.name == "best_of" ? 1 : field.min))))
        << field.name;
    if (field.name != "best_of" && field.name != "min_tokens") {
      EXPECT_NO_THROW(chat(with(fmt::format(fmt::runtime(field.whole ? "{:.0f}" : "{:.2f}"), field.max))))
          << field.name;
    }
  }
  expect_refused(R"("seed":9223372036854775808)", "seed");
  expect_refused(R"("seed":1.5)", "seed");
  EXPECT_EQ(chat(R"("seed":-1)").engine.sampling.seed, UINT64_MAX);
  EXPECT_EQ(chat(R"("seed":-9223372036854775808)").engine.sampling.seed, uint64_t{1} << 63);
  expect_refused(R"("min_tokens":5,"max_tokens":4)", "min_tokens");
}

TEST(Requests, switches_are_true_or_false) {
  for (const std::string name : {"stream", "logprobs", "ignore_eos", "skip_special_tokens",
                                 "include_stop_str_in_output", "add_generation_prompt", "continue_final_message"}) {
    for (const std::string value : {"1", "0", "\"true\"", "[]", "{}", "\"\""})
      expect_refused(fmt::format("\"{}\":{}", name, value), name);
    EXPECT_NO_THROW(chat(fmt::format("\"{}\":false", name)));
    EXPECT_NO_THROW(chat(fmt::format("\"{}\":null", name)));
  }
  for (const std::string name : {"include_usage", "include_progress"})
    expect_refused(fmt::format(R"("stream":true,"stream_options":{{"{}":1}})", name), "stream_options." + name);
}

TEST(Requests, other_fields_with_wrong_values_are_named) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {R"("model":1)", "model"},
      {R"("model":[])", "model"},
      {R"("stop":1)", "stop"},
      {R"("stop":"")", "stop"},
      {R"("stop":[""])", "stop"},
      {R"("stop":[1])", "stop[0]"},
      {R"("stop":["a",null])", "stop[1]"},
      {R"("stop":["1","2","3","4","5","6","7","8","9","0","a","b","c","d","e","f","g"])", "stop"},
      {fmt::format(R"("stop":"{}")", std::string(2000, 'x')), "stop"},
      {R"("stop_token_ids":5)", "stop_token_ids"},
      {R"("stop_token_ids":[1000])", "stop_token_ids[0]"},
      {R"("stop_token_ids":[1,-1])", "stop_token_ids[1]"},
      {R"("stop_token_ids":["1"])", "stop_token_ids[0]"},
      {R"("logit_bias":[])", "logit_bias"},
      {R"("logit_bias":{"1000":1})", "logit_bias"},
      {R"("logit_bias":{"-1":1})", "logit_bias"},
      {R"("logit_bias":{"a":1})", "logit_bias"},
      {R"("logit_bias":{"1 ":1})", "logit_bias"},
      {R"("logit_bias":{"1":101})", "logit_bias.1"},
      {R"("logit_bias":{"1":"1"})", "logit_bias.1"},
      {R"("top_logprobs":3)", "top_logprobs"},
      {R"("stream_options":{})", "stream_options"},
      {R"("stream":true,"stream_options":[])", "stream_options"},
      {R"("request_id":1)", "request_id"},
      {R"("cache_salt":1)", "cache_salt"},
      {R"("response_format":"json")", "response_format"},
      {R"("response_format":{"type":"xml"})", "response_format.type"},
      {R"("response_format":{})", "response_format.type"},
      {R"("response_format":{"type":"json_schema"})", "response_format.json_schema.schema"},
      {R"("response_format":{"type":"json_schema","json_schema":{"schema":1}})", "response_format.json_schema.schema"},
      {R"("structured_outputs":1)", "structured_outputs"},
      {R"("structured_outputs":{"regex":1})", "structured_outputs.regex"},
      {R"("structured_outputs":{"choice":[]})", "structured_outputs.choice"},
      {R"("structured_outputs":{"choice":[1]})", "structured_outputs.choice"},
      {R"("structured_outputs":{"json":1})", "structured_outputs.json"},
      {R"("structured_outputs":{"regex":"a","grammar":"b"})", "structured_outputs.grammar"},
      {R"("mm_processor_kwargs":1)", "mm_processor_kwargs"},
      {R"("mm_processor_kwargs":{"max_tiles":0})", "mm_processor_kwargs.max_tiles"},
      {R"("mm_processor_kwargs":{"do_image_splitting":1})", "mm_processor_kwargs.do_image_splitting"},
      {R"("mm_processor_kwargs":{"size":1})", "mm_processor_kwargs.size"},
      {R"("mm_processor_kwargs":{"size":{"longest_edge":5000}})", "mm_processor_kwargs.size.longest_edge"},
      {R"("continue_final_message":true)", "continue_final_message"},
      {R"("continue_final_message":true,"add_generation_prompt":true)", "continue_final_message"},
  };
  for (const auto& [fields, param] : cases) expect_refused(fields, param);
  expect_refused(R"("model":"other")", "model", "model_not_found");
}

TEST(Requests, what_cannot_be_done_is_refused_and_never_ignored) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {R"("chat_template":"{{ 1 }}")", "chat_template"},
      {R"("chat_template_kwargs":{"a":1})", "chat_template_kwargs"},
      {R"("n_discard":5)", "n_discard"},
      {R"("tools":[{"type":"function"}])", "tools"},
      {R"("functions":[{}])", "functions"},
      {R"("echo":true)", "echo"},
      {R"("suffix":"x")", "suffix"},
      {R"("use_beam_search":true)", "use_beam_search"},
      {R"("bad_words":["x"])", "bad_words"},
      {R"("allowed_token_ids":[1])", "allowed_token_ids"},
      {R"("logits_processors":["os.system"])", "logits_processors"},
      {R"("truncate_prompt_tokens":5)", "truncate_prompt_tokens"},
      {R"("prompt_embeds":"x")", "prompt_embeds"},
      {R"("best_of":2)", "best_of"},
      {R"("mm_processor_kwargs":{"num_crops":1})", "mm_processor_kwargs"},
  };
  for (const auto& [fields, param] : cases) expect_refused(fields, param, "unsupported_parameter");
  for (const std::string fields :
       {R"("tools":[])", R"("chat_template":null)", R"("chat_template_kwargs":{})", R"("echo":false)",
        R"("suffix":null)", R"("response_format":{"type":"text"})", R"("response_format":null)",
        R"("structured_outputs":{})", R"("user":"x","metadata":{"a":[1]},"store":true,"what_is_this":1e5)"})
    EXPECT_NO_THROW(chat(fields)) << fields;
}

TEST(Requests, every_way_to_ask_for_structure_reaches_the_engine) {
  using Kind = StructuredOutput::Kind;
  struct Case {
    std::string fields;
    Kind kind;
    std::string text;
  };
  const Case cases[] = {
      {R"("response_format":{"type":"json_object"})", Kind::kJsonObject, ""},
      {R"("response_format":{"type":"json_schema","json_schema":{"schema":{}}})", Kind::kJsonSchema, "{}"},
      {R"("structured_outputs":{"regex":"a+"})", Kind::kRegex, "a+"},
      {R"("structured_outputs":{"json":{"a":1}})", Kind::kJsonSchema, R"({"a":1})"},
      {R"("structured_outputs":{"json":"{}"})", Kind::kJsonSchema, "{}"},
      {R"("structured_outputs":{"choice":["a"]})", Kind::kChoice, ""},
      {R"("structured_outputs":{"grammar":"root ::= x"})", Kind::kGrammar, "root ::= x"},
      {R"("guided_json":{})", Kind::kJsonSchema, "{}"},
      {R"("guided_regex":"a")", Kind::kRegex, "a"},
      {R"("guided_choice":["a"])", Kind::kChoice, ""},
      {R"("guided_grammar":"root ::= x")", Kind::kGrammar, "root ::= x"},
  };
  for (const Case& c : cases) {
    const std::optional<StructuredOutput> got = chat(c.fields).engine.structured_output;
    ASSERT_TRUE(got) << c.fields;
    EXPECT_EQ(got->kind, c.kind) << c.fields;
    EXPECT_EQ(got->text, c.text) << c.fields;
    EXPECT_EQ(got->choices.size(), c.kind == Kind::kChoice ? 1u : 0u) << c.fields;
  }
  EXPECT_FALSE(chat(R"("structured_outputs":{})").engine.structured_output);
}

TEST(Requests, messages_with_wrong_parts_are_named) {
  const auto expect = [](const std::string& messages, const std::string& param,
                         const std::string& code = "invalid_value") {
    const ApiError error =
        refusal([&] { parse_chat_request(parse_body(R"({"messages":)" + messages + "}"), context()); }, messages);
    EXPECT_EQ(error.status, 400);
    EXPECT_EQ(error.param, param) << messages;
    EXPECT_EQ(error.code, code) << messages;
  };
  expect("null", "messages");
  expect("1", "messages");
  expect("{}", "messages");
  expect("\"Hi\"", "messages");
  expect("[]", "messages", "prompt_empty");
  expect("[1]", "messages[0]");
  expect("[null]", "messages[0]");
  expect("[{}]", "messages[0].role");
  expect(R"([{"role":"king","content":"x"}])", "messages[0].role");
  expect(R"([{"role":1,"content":"x"}])", "messages[0].role");
  expect(R"([{"role":"tool","content":"x"}])", "messages[0].role", "unsupported_parameter");
  expect(R"([{"role":"user"}])", "messages[0].content");
  expect(R"([{"role":"user","content":null}])", "messages[0].content");
  expect(R"([{"role":"user","content":5}])", "messages[0].content");
  expect(R"([{"role":"user","content":{}}])", "messages[0].content");
  expect(R"([{"role":"user","content":[]}])", "messages[0].content", "prompt_empty");
  expect(R"([{"role":"user","content":["x"]}])", "messages[0].content[0]");
  expect(R"([{"role":"user","content":[{}]}])", "messages[0].content[0].type");
  expect(R"([{"role":"user","content":[{"type":"text"}]}])", "messages[0].content[0].text");
  expect(R"([{"role":"user","content":[{"type":"text","text":1}]}])", "messages[0].content[0].text");
  expect(R"([{"role":"user","content":[{"type":"smell"}]}])", "messages[0].content[0].type");
  expect(R"([{"role":"user","content":[{"type":"input_audio"}]}])", "messages[0].content[0].type",
         "unsupported_parameter");
  expect(R"([{"role":"user","content":[{"type":"image_url"}]}])", "messages[0].content[0].image_url");
  expect(R"([{"role":"user","content":[{"type":"image_url","image_url":{}}]}])",
         "messages[0].content[0].image_url.url");
  expect(R"([{"role":"user","content":[{"type":"image_url","image_url":{"url":1}}]}])",
         "messages[0].content[0].image_url.url");
  expect(
      R"([{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA","detail":"x"}}]}])",
      "messages[0].content[0].image_url.detail");
  expect(R"([{"role":"user","content":[{"type":"image_url","image_url":{"url":"http://localhost/x.png"}}]}])",
         "messages[0].content[0].image_url", "image_url_not_allowed");
  std::string many;
  for (int i = 0; i < 17; ++i)
    many += std::string(i ? "," : "") + R"({"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}})";
  expect(R"([{"role":"user","content":[)" + many + "]}]", "messages[0].content[16].image_url", "too_many_images");
  for (const std::string body : {"1", "[]", "null", "\"x\""}) {
    const ApiError error = refusal([&] { parse_chat_request(parse_body(body), context()); }, body);
    EXPECT_EQ(error.code, "invalid_value");
    EXPECT_EQ(error.param, "");
  }
}

TEST(Requests, a_chat_becomes_what_the_engine_takes) {
  const GenerationRequest request = parse_chat_request(
      parse_body(R"({"model":"alias","messages":[{"role":"developer","content":"Be brief."},{"role":"user","content":[
        {"type":"image_url","image_url":{"url":"data:image/png;base64,AAEC","detail":"low"}},{"type":"text","text":"?"}]}],
        "max_tokens":5,"max_completion_tokens":7,"temperature":0.5,"top_k":-1,"top_p":0.9,"min_p":0.1,
        "repetition_penalty":1.5,"presence_penalty":0.25,"frequency_penalty":-0.5,"seed":42,"stop":["a","b"],
        "stop_token_ids":[3,4],"logit_bias":{"5":-100,"6":null},"min_tokens":2,"ignore_eos":true,
        "skip_special_tokens":false,"include_stop_str_in_output":true,"n":2,"cache_salt":"s","request_id":"r",
        "no_repeat_ngram_size":3,"prompt_logprobs":2,"mm_processor_kwargs":{"max_tiles":4,"size":{"longest_edge":512}},
        "stream":true,"stream_options":{"include_usage":true}})"),
      context());
  const idefics::Request& engine = request.engine;
  ASSERT_EQ(engine.messages.size(), 2u);
  EXPECT_EQ(engine.messages[0].role, "system");
  EXPECT_EQ(engine.messages[1].content[0].image, std::string("\0\1\2", 3));
  EXPECT_EQ(engine.messages[1].content[1].text, "?");
  EXPECT_EQ(engine.messages[1].content[0].options.split, false);
  EXPECT_EQ(engine.prompt.images.split, std::nullopt);
  EXPECT_EQ(engine.prompt.images.max_tiles, 4);
  EXPECT_EQ(engine.prompt.images.longest_edge, 512);
  EXPECT_TRUE(engine.prompt.add_generation_prompt);
  EXPECT_EQ(engine.sampling.max_tokens, 7);
  EXPECT_EQ(engine.sampling.temperature, 0.5);
  EXPECT_EQ(engine.sampling.top_k, 0);
  EXPECT_EQ(engine.sampling.top_p, 0.9);
  EXPECT_EQ(engine.sampling.min_p, 0.1);
  EXPECT_EQ(engine.sampling.repetition_penalty, 1.5);
  EXPECT_EQ(engine.sampling.presence_penalty, 0.25);
  EXPECT_EQ(engine.sampling.frequency_penalty, -0.5);
  EXPECT_EQ(engine.sampling.seed, 42u);
  EXPECT_EQ(engine.sampling.stop, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(engine.sampling.stop_token_ids, (std::vector<int32_t>{3, 4}));
  EXPECT_EQ(engine.sampling.logit_bias, (std::vector<std::pair<int32_t, double>>{{5, -100}}));
  EXPECT_EQ(engine.sampling.min_tokens, 2);
  EXPECT_EQ(engine.sampling.no_repeat_ngram_size, 3);
  EXPECT_TRUE(engine.sampling.ignore_eos);
  EXPECT_EQ(engine.skip_special_tokens, false);
  EXPECT_TRUE(engine.include_stop_str_in_output);
  EXPECT_EQ(engine.n, 2);
  EXPECT_EQ(engine.cache_salt, "s");
  EXPECT_EQ(engine.prompt_logprobs, 2);
  EXPECT_EQ(request.model, "alias");
  EXPECT_EQ(request.request_id, "r");
  EXPECT_TRUE(request.stream && request.include_usage && !request.include_progress);
  EXPECT_EQ(request.picture_params, (std::vector<std::string>{"messages[1].content[0].image_url"}));
}

TEST(Requests, the_request_that_docling_sends_is_taken) {
  const GenerationRequest request = parse_chat_request(parse_body(R"({"messages":[{"role":"user","content":[
        {"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}},
        {"type":"text","text":"Convert this page to docling."}]}],
        "temperature":0.0,"max_tokens":4096,"stop":["</doctag>","<|end_of_text|>"],"skip_special_tokens":false})"),
                                                       context());
  EXPECT_EQ(request.model, "tiny");
  EXPECT_EQ(request.engine.sampling.temperature, 0);
  EXPECT_EQ(request.engine.prompt.images.split, std::nullopt);
}

TEST(Requests, each_picture_has_its_own_detail_unless_the_request_says_how_all_are_cut) {
  using Splits = std::vector<std::optional<bool>>;
  const auto splits = [](const std::vector<std::string>& details, const std::string& more = "") {
    std::string parts;
    for (const std::string& detail : details)
      parts += R"({"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA","detail":)" + detail + "}},";
    parts += R"({"type":"image_url","image_url":"data:image/png;base64,AAAA"})";
    const GenerationRequest request = parse_chat_request(
        parse_body(R"({"messages":[{"role":"user","content":[)" + parts + "]}]" + more + "}"), context());
    Splits out{request.engine.prompt.images.split};
    for (const ContentPart& part : request.engine.messages[0].content) out.push_back(part.options.split);
    return out;
  };
  constexpr std::nullopt_t kNo = std::nullopt;
  EXPECT_EQ(splits({R"("low")", R"("high")", R"("auto")", R"("low")", "null"}),
            (Splits{kNo, false, kNo, kNo, false, kNo, kNo}));
  EXPECT_EQ(splits({R"("low")"}, R"(,"mm_processor_kwargs":{"max_tiles":3})"), (Splits{kNo, false, kNo}));
  EXPECT_EQ(splits({R"("low")"}, R"(,"mm_processor_kwargs":{"do_image_splitting":true})"), (Splits{true, kNo, kNo}));
  EXPECT_EQ(splits({R"("high")"}, R"(,"mm_processor_kwargs":{"do_image_splitting":false})"), (Splits{false, kNo, kNo}));
}

TEST(Requests, the_prompt_of_a_completion_is_a_text_or_ids) {
  EXPECT_EQ(completion(R"("prompt":"a")").engine.text, "a");
  EXPECT_EQ(completion(R"("prompt":["a"])").engine.text, "a");
  EXPECT_EQ(completion(R"("prompt":[1,2])").engine.token_ids, (std::vector<int32_t>{1, 2}));
  EXPECT_EQ(completion(R"("prompt":[[1,2]])").engine.token_ids, (std::vector<int32_t>{1, 2}));
  const std::vector<std::tuple<std::string, std::string, std::string>> cases = {
      {R"("max_tokens":1)", "prompt", "invalid_value"},
      {R"("prompt":1)", "prompt", "invalid_value"},
      {R"("prompt":{})", "prompt", "invalid_value"},
      {R"("prompt":"")", "prompt", "prompt_empty"},
      {R"("prompt":[])", "prompt", "prompt_empty"},
      {R"("prompt":[[]])", "prompt[0]", "prompt_empty"},
      {R"("prompt":["a","b"])", "prompt", "unsupported_parameter"},
      {R"("prompt":[1,"b"])", "prompt[1]", "invalid_value"},
      {R"("prompt":[1000])", "prompt[0]", "invalid_value"},
      {R"("prompt":[-1])", "prompt[0]", "invalid_value"},
      {R"("prompt":[1.5])", "prompt[0]", "invalid_value"},
      {R"("prompt":"a","logprobs":21)", "logprobs", "invalid_value"},
      {R"("prompt":"a","logprobs":true)", "logprobs", "invalid_value"},
  };
  for (const auto& [fields, param, code] : cases) {
    const ApiError error = refusal([&, &f = fields] { completion(f); }, fields);
    EXPECT_EQ(error.param, param) << fields;
    EXPECT_EQ(error.code, code) << fields;
  }
}

TEST(Requests, tokenize_takes_texts_and_messages_and_detokenize_ids) {
  EXPECT_EQ(parse_tokenize_request(parse_body(R"({"prompt":""})"), context()).text, "");
  EXPECT_EQ(parse_tokenize_request(parse_body("{" + kMessages + "}"), context()).messages.size(), 1u);
  EXPECT_EQ(parse_detokenize_request(parse_body(R"({"tokens":[1,999]})"), context()), (std::vector<int32_t>{1, 999}));
  for (const std::string body : {"{}", R"({"prompt":1})", R"({"messages":1})"})
    EXPECT_EQ(refusal([&] { parse_tokenize_request(parse_body(body), context()); }, body).status, 400);
  for (const std::string body : {"{}", R"({"tokens":1})", R"({"tokens":[1000]})", R"({"tokens":["1"]})"})
    EXPECT_EQ(refusal([&] { parse_detokenize_request(parse_body(body), context()); }, body).status, 400);
}

}  // namespace
}  // namespace idefics::openai
