// Tokenizers against the reference (specification 3.3, 3.4, 5): ids of texts, texts of ids, streams.
#include <fmt/ranges.h>

#include <map>

#include "golden.h"
#include "text/tokenizer.h"

namespace idefics {
namespace {

using golden::Family;

Tokenizer load(const std::string& name) {
  const auto path = golden::data(name);
  return Tokenizer::parse(read_file(path, Tokenizer::kMaxFileBytes), path.string());
}

std::vector<int32_t> ids_of(const json::value& value) { return json::value_to<std::vector<int32_t>>(value); }

std::string text_of(const json::object& row, std::string_view key) { return std::string(row.at(key).as_string()); }

// The value of `key`, or that of `other`: rows leave out what is the same.
const json::value& either(const json::object& row, std::string_view key, std::string_view other) {
  return row.contains(key) ? row.at(key) : row.at(other);
}

// What is wrong with the row of a text, one line each; empty when all is well.
std::string wrong_in_case(const Tokenizer& tokenizer, const json::object& row) {
  const std::string text = text_of(row, "text");
  std::string wrong;
  const auto compare = [&](std::string_view what, const auto& got, const auto& wanted) {
    if (got != wanted) wrong += fmt::format("{}: got {}, wanted {}\n", what, got, wanted);
  };
  const std::vector<int32_t> special = ids_of(either(row, "ids_special", "ids"));
  compare("ids", tokenizer.encode(text), ids_of(row.at("ids")));
  compare("ids_special", tokenizer.encode(text, {.add_special_tokens = true}), special);
  compare("ids_untrusted", tokenizer.encode(text, {.untrusted = true}), ids_of(either(row, "ids_untrusted", "ids")));
  compare("decoded", tokenizer.decode(special, false), text_of(row, "decoded"));
  compare("decoded_skip", tokenizer.decode(special, true),
          std::string(either(row, "decoded_skip", "decoded").as_string()));
  return wrong;
}

// The same for the row of arbitrary ids.
std::string wrong_in_decoding(const Tokenizer& tokenizer, const json::object& row) {
  const std::vector<int32_t> ids = ids_of(row.at("ids"));
  std::string wrong;
  for (const bool skip : {false, true}) {
    const std::string wanted = text_of(row, skip ? "text_skip" : "text");
    const std::string whole = tokenizer.decode(ids, skip);
    if (whole != wanted) wrong += fmt::format("decode, skip {}: got {}, wanted {}\n", skip, whole, wanted);
    StreamDecoder stream(tokenizer, skip);
    std::string streamed;
    for (const int32_t id : ids) streamed += stream.push(id);
    streamed += stream.finish();
    if (streamed != wanted) wrong += fmt::format("stream, skip {}: got {}, wanted {}\n", skip, streamed, wanted);
  }
  return wrong;
}

void check_rows(Family& family, const Tokenizer& tokenizer, const std::string& file,
                decltype(wrong_in_case)& wrong_in) {
  for (const json::value& row : golden::read_lines(file)) {
    const std::string wrong = wrong_in(tokenizer, row.as_object());
    family.check(wrong.empty(), json::serialize(row) + "\n" + wrong);
  }
}

class TokenizerGolden : public testing::TestWithParam<std::string> {};

TEST_P(TokenizerGolden, agrees_with_the_reference) {
  const std::string folder = "tokenizer/" + GetParam();
  const Tokenizer tokenizer = load(folder + "/tokenizer.json");
  Family family(folder);
  check_rows(family, tokenizer, folder + "/cases.jsonl", wrong_in_case);
  check_rows(family, tokenizer, folder + "/decode.jsonl", wrong_in_decoding);
}

INSTANTIATE_TEST_SUITE_P(Families, TokenizerGolden, testing::Values("smolvlm", "llama3", "granite"),
                         [](const auto& family) { return family.param; });

TEST(AddedTokensGolden, flags_of_added_tokens) {
  const Tokenizer tokenizer = load("tokenizer/flags.tokenizer.json");
  Family family("tokenizer/flags");
  check_rows(family, tokenizer, "tokenizer/flags.jsonl", wrong_in_case);
}

// Renders messages of texts the way the three templates do, noting where the texts lie.
struct Rendered {
  std::string text;
  std::vector<TextRange> untrusted;
};

Rendered render(const std::string& name, const json::array& messages) {
  Rendered r;
  const bool granite = name == "granite";
  if (!granite) r.text = name == "smolvlm" ? "<|im_start|>" : "<|begin_of_text|>";
  for (const json::value& message : messages) {
    std::string role = text_of(message.as_object(), "role");
    if (!granite) role[0] = static_cast<char>(role[0] - 'a' + 'A');
    r.text += granite ? "<|start_of_role|>" + role + "<|end_of_role|>" : role + ": ";
    for (const json::value& part : message.at("content").as_array()) {
      const size_t begin = r.text.size();
      r.text += text_of(part.as_object(), "text");
      r.untrusted.push_back({begin, r.text.size()});
    }
    r.text += granite ? "<|end_of_text|>\n" : "<end_of_utterance>\n";
  }
  r.text += granite ? "<|start_of_role|>assistant<|end_of_role|>" : "Assistant:";
  return r;
}

TEST(ChatGolden, control_tokens_of_users_are_plain_text) {
  std::map<std::string, Tokenizer> tokenizers;
  Family family("chat/untrusted");
  for (const json::value& value : golden::read_lines("chat/untrusted.jsonl")) {
    const json::object& row = value.as_object();
    const std::string name = text_of(row, "tokenizer");
    if (!tokenizers.contains(name)) tokenizers.emplace(name, load("tokenizer/" + name + "/tokenizer.json"));
    const Tokenizer& tokenizer = tokenizers.at(name);
    const Rendered rendered = render(text_of(row, "template"), row.at("messages").as_array());
    ASSERT_EQ(rendered.text, text_of(row, "rendered"));
    const auto mixed = tokenizer.encode_mixed(rendered.text, rendered.untrusted);
    const auto trusted = tokenizer.encode_mixed(rendered.text, {});
    family.check(mixed == ids_of(row.at("ids")) && trusted == ids_of(row.at("ids_trusted")),
                 fmt::format("{}: got {}, trusted {}", json::serialize(row), mixed, trusted));
  }
}

TEST(ChatGolden, ids_of_rendered_chats) {
  const json::value templates = parse_json(read_file(golden::data("chat/templates.json"), 1 << 20), "templates.json");
  std::map<std::string, Tokenizer> tokenizers;
  for (const auto& [name, entry] : templates.as_object()) {
    tokenizers.emplace(name, load("tokenizer/" + text_of(entry.as_object(), "tokenizer") + "/tokenizer.json"));
  }
  Family family("chat/ids");
  for (const json::value& value : golden::read_lines("chat/chat.jsonl")) {
    const json::object& row = value.as_object();
    if (!row.contains("ids")) continue;  // a conversation that the template refuses
    const auto got = tokenizers.at(text_of(row, "template")).encode(text_of(row, "rendered"));
    family.check(got == ids_of(row.at("ids")), fmt::format("{}: got {}", json::serialize(row), got));
  }
}

}  // namespace
}  // namespace idefics
