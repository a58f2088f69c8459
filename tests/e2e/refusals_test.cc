// Everything that goes wrong: the right exit code, exactly one line on standard error that names the thing, nothing on
// standard output, nothing left behind.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>

#include "program.h"

namespace idefics::e2e {
namespace {

const std::string kModel = tiny_cards().string();
const std::string kCard = (tiny_cards() / "samples/01.png").string();

using Arguments = std::vector<std::string>;

struct Refusal {
  std::string what;
  Arguments arguments;
  int exit_code;
  std::vector<std::string> words;  // all of them stand in the line
  Setting setting = {};
};

// Runs in an empty folder, which must be empty afterwards.
void expect_refused(const Refusal& refusal) {
  SCOPED_TRACE(refusal.what);
  const ScratchFolder empty;
  Setting setting = refusal.setting;
  setting.folder = empty.path();
  const Outcome outcome = run(refusal.arguments, setting);
  EXPECT_EQ(outcome.exit_code, refusal.exit_code) << outcome.err;
  EXPECT_EQ(outcome.out, "");
  EXPECT_TRUE(outcome.err.starts_with("idefics: error: ")) << outcome.err;
  EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << outcome.err;
  EXPECT_TRUE(outcome.err.ends_with('\n')) << outcome.err;
  for (const std::string& word : refusal.words)
    EXPECT_NE(outcome.err.find(word), std::string::npos) << "\"" << word << "\" is not in: " << outcome.err;
  EXPECT_EQ(outcome.err.find("0x"), std::string::npos) << "an address says nothing: " << outcome.err;
  EXPECT_TRUE(empty.entries().empty()) << empty.entries().front();
}

TEST(Refusals, wrong_command_lines) {
  const std::vector<Refusal> cases = {
      {"no verb", {}, 2, {"no verb", "generate", "--help"}},
      {"unknown verb", {"generat", kModel}, 2, {"\"generat\"", "did you mean generate?", "--help"}},
      {"hopeless verb", {"xyzzyxyzzy"}, 2, {"\"xyzzyxyzzy\"", "--help"}},
      {"option before the verb", {"--json", "show", kModel}, 2, {"--json", "--help"}},
      {"unknown option", {"generate", kModel, "--max-token", "5"}, 2, {"--max-token", "did you mean --max-tokens?"}},
      {"unknown option with value", {"generate", kModel, "--sead=5", "-p", "x"}, 2, {"--sead", "did you mean --seed?"}},
      {"hopeless option", {"show", kModel, "--quantization-bits"}, 2, {"--quantization-bits", "idefics show --help"}},
      {"no model", {"generate", "-p", "x"}, 2, {"MODEL", "idefics generate --help"}},
      {"a word too many", {"show", kModel, "twice"}, 2, {"\"twice\"", "one word too many"}},
      {"value is missing", {"generate", kModel, "-p"}, 2, {"--prompt", "--help"}},
      {"not a number",
       {"generate", kModel, "-p", "x", "--max-tokens", "many"},
       2,
       {"--max-tokens", "\"many\"", "0 to"}},
      {"number too large", {"generate", kModel, "-p", "x", "--top-k", "99999999999"}, 2, {"--top-k", "99999999999"}},
      {"negative", {"generate", kModel, "-p", "x", "--max-tokens", "-1"}, 2, {"--max-tokens", "\"-1\""}},
      {"NaN", {"generate", kModel, "-p", "x", "--temperature", "nan"}, 2, {"--temperature", "\"nan\""}},
      {"infinite", {"generate", kModel, "-p", "x", "--top-p", "1e999"}, 2, {"--top-p", "1e999"}},
      {"no threads", {"generate", kModel, "-p", "x", "--threads", "0"}, 2, {"--threads", "1 to 1024"}},
      {"seed too large", {"generate", kModel, "-p", "x", "--seed", "18446744073709551616"}, 2, {"--seed", "2^64"}},
      {"unknown format", {"generate", kModel, "-p", "x", "--dtype", "f64"}, 2, {"--dtype", "auto, f32, bf16"}},
      {"no runs", {"bench", kModel, "--runs", "0"}, 2, {"--runs", "1 to 10000"}},
      {"an answer of one token has no speed", {"bench", kModel, "--max-tokens", "1"}, 2, {"--max-tokens", "2 to"}},
      {"a sampling option", {"bench", kModel, "--temperature", "1"}, 2, {"--temperature", "idefics bench --help"}},
      {"two pictures to measure", {"bench", kModel, kCard}, 2, {"one word too many"}},
      {"bias without value", {"generate", kModel, "-p", "x", "--logit-bias", "42"}, 2, {"--logit-bias", "42=-1.5"}},
      {"stop id is a word",
       {"generate", kModel, "-p", "x", "--stop-token-id", "eos"},
       2,
       {"--stop-token-id", "\"eos\""}},
      {"bad length", {"generate", kModel, "-p", "x", "--max-model-len", "4q"}, 2, {"--max-model-len", "\"4q\"", "4k"}},
      {"both kinds of text",
       {"generate", kModel, "-p", "x", "--keep-special-tokens", "--skip-special-tokens"},
       2,
       {"--keep-special-tokens", "--skip-special-tokens"}},
      {"no question", {"generate", kModel}, 2, {"--prompt", "--image", "--messages"}},
      {"two questions", {"generate", kModel, "-p", "x", "--messages", "m.json"}, 2, {"--messages", "--prompt"}},
      {"two from standard input", {"generate", kModel, "-p", "-", "--image", "-"}, 2, {"standard input"}},
      {"bad environment",
       {"generate", kModel, "-p", "x"},
       2,
       {"IDEFICS_MAX_TOKENS", "\"lots\""},
       {.environment = {{"IDEFICS_MAX_TOKENS", "lots"}}}},
      {"bad switch in the environment",
       {"generate", kModel, "-p", "x"},
       2,
       {"IDEFICS_JSON", "true or false"},
       {.environment = {{"IDEFICS_JSON", "perhaps"}}}},
      {"unknown shell", {"completion", "tcsh"}, 2, {"tcsh", "bash, zsh, fish"}},
      {"render without messages", {"render", kModel}, 2, {"--messages"}},
      {"ids that are none", {"detokenize", kModel, "[1, \"x\"]"}, 2, {"IDS", "[1, 2]"}},
      {"ids that are no JSON", {"detokenize", kModel, "1 2"}, 2, {"IDS", "JSON"}},
      {"a line that is no string",
       {"tokenize", kModel, "--jsonl"},
       2,
       {"line 1", "wanted a JSON string"},
       {.input = "3\n"}},
      {"text beside lines", {"tokenize", kModel, "x", "--jsonl"}, 2, {"--jsonl", "TEXT"}},
      {"unknown CPU level",
       {"generate", kModel, "-p", "x"},
       2,
       {"IDEFICS_KERNELS", "avx1024"},
       {.environment = {{"IDEFICS_KERNELS", "avx1024"}}}},
  };
  for (const Refusal& refusal : cases) expect_refused(refusal);
}

TEST(Refusals, an_environment_variable_of_another_verb_harms_nobody) {
  EXPECT_EQ(run({"show", kModel}, {.environment = {{"IDEFICS_MAX_TOKENS", "lots"}}}).exit_code, 0);
}

TEST(Refusals, bad_requests) {
  const ScratchFolder files;
  const auto messages = [&](const std::string& name, const std::string& text) {
    return Arguments{"generate", kModel, "--messages", files.write(name, text).string()};
  };
  std::string words = "word";
  for (int i = 0; i < 4000; ++i) words += " word";
  const std::vector<Refusal> cases = {
      {"empty prompt", {"generate", kModel, "-p", ""}, 2, {"empty", "write a question"}},
      {"longer than the context", {"generate", kModel, "-p", words}, 2, {"tokens", "2048", "shorten"}},
      {"pictures longer than the context",
       {"generate", kModel, "-p", "x", "--image", kCard, "--max-model-len", "100"},
       2,
       {"80 of them for 5 image tiles", "100", "max_tiles"}},
      {"context beyond the model", {"generate", kModel, "-p", "x", "--max-model-len", "4k"}, 2, {"4096", "2048"}},
      {"prompt is not UTF-8", {"generate", kModel, "-p", "\xff\xfe"}, 2, {"not UTF-8"}},
      {"bias beyond the vocabulary", {"generate", kModel, "-p", "x", "--logit-bias", "5000=1"}, 2, {"5000", "1920"}},
      {"stop at nothing", {"generate", kModel, "-p", "x", "--stop", ""}, 2, {"stop", "empty"}},
      {"temperature below 0", {"generate", kModel, "-p", "x", "--temperature", "-1"}, 2, {"temperature", "-1"}},
      {"messages are no JSON", messages("a.json", "[{"), 2, {"a.json", "line 1"}},
      {"messages are no array", messages("b.json", "{\"role\": \"user\"}"), 2, {"b.json", "wanted an array"}},
      {"no messages", messages("c.json", "[]"), 2, {"messages", "at least one"}},
      {"no role", messages("d.json", R"([{"content": "x"}])"), 2, {"d.json: message 1", "role"}},
      {"no content", messages("e.json", R"([{"role": "user"}])"), 2, {"e.json: message 1", "content"}},
      {"unknown part",
       messages("f.json", R"([{"role": "user", "content": [{"type": "video"}]}])"),
       2,
       {"f.json: message 1: part 1", "\"video\"", "\"image\""}},
      {"picture without path",
       messages("g.json", R"([{"role": "user", "content": [{"type": "image"}]}])"),
       2,
       {"g.json: message 1: part 1", "path"}},
      {"picture that is missing",
       messages("h.json", R"([{"role": "user", "content": [{"type": "image", "path": "no.png"}]}])"),
       5,
       {"no.png", "No such file"}},
      {"messages file is missing", {"generate", kModel, "--messages", "/no/m.json"}, 5, {"/no/m.json", "No such file"}},
  };
  for (const Refusal& refusal : cases) expect_refused(refusal);
}

// A BMP of 65535 x 65535 pixels, as far as its 54 bytes say.
std::string bomb() {
  std::string bytes("BM\0\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0\xff\xff\0\0\xff\xff\0\0\x01\0\x18\0", 30);
  return bytes + std::string(24, '\0');
}

TEST(Refusals, bad_pictures) {
  const ScratchFolder files;
  const std::string card = read(kCard);
  std::string flipped = card;
  flipped[flipped.size() / 2] ^= 0x40;
  struct Picture {
    std::string path;
    int exit_code;
    std::vector<std::string> words;
  };
  const std::vector<Picture> pictures = {
      {"/no/such.png", 5, {"/no/such.png", "No such file"}},
      {files.path().string(), 5, {files.path().string(), "folder"}},
      {"/dev/zero", 5, {"/dev/zero", "not a regular file"}},
      {files.write("text.png", "I am no picture").string(), 2, {"text.png"}},
      {files.write("empty.png", "").string(), 2, {"empty.png"}},
      {files.write("cut.png", card.substr(0, card.size() / 2)).string(), 2, {"cut.png"}},
      {files.write("header.png", card.substr(0, 20)).string(), 2, {"header.png"}},
      {files.write("flipped.png", flipped).string(), 2, {"flipped.png"}},
      {files.write("bomb.bmp", bomb()).string(), 2, {"bomb.bmp", "65535"}},
      {files.write("line\nend\x1b[31m.png", "no").string(), 2, {"line\\nend\\x1b[31m.png"}},
      {golden("images/bomb.png").string(), 2, {"bomb.png"}},
      {golden("images/cut_half.jpg").string(), 2, {"cut_half.jpg"}},
  };
  for (const Picture& picture : pictures) {
    const Arguments ask = {"generate", kModel, "-p", "What is it?", "--image", kCard, "--image", picture.path};
    expect_refused({"generate " + picture.path, ask, picture.exit_code, picture.words});
    const Arguments cut = {"tiles", kModel, picture.path, "--out", "tiles"};
    expect_refused({"tiles " + picture.path, cut, picture.exit_code, picture.words});
    const Arguments measure = {"bench", kModel, "--image", picture.path};
    expect_refused({"bench " + picture.path, measure, picture.exit_code, picture.words});
  }
  expect_refused(
      {"standard input", {"generate", kModel, "-p", "x", "--image", "-"}, 2, {"standard input"}, {.input = "no"}});
}

TEST(Refusals, a_picture_file_beyond_the_limit_is_not_even_read) {
  const ScratchFolder files;
  const auto file = files.write("large.png", "x");
  std::filesystem::resize_file(file, uint64_t{1} << 40);
  expect_refused({"1 TiB", {"tiles", kModel, file.string()}, 2, {"large.png", "1099511627776", "smaller"}});
}

TEST(Refusals, bad_models) {
  struct Damage {
    std::string what, file, from, to;  // without `from` the file is removed
    std::vector<std::string> words;
  };
  const std::vector<Damage> damages = {
      {"no config", "config.json", "", "", {"config.json", "No such file"}},
      {"config is no JSON", "config.json", "{", "[", {"config.json"}},
      {"key of a wrong type",
       "config.json",
       "\"patch_size\": 12",
       "\"patch_size\": \"12\"",
       {"config.json", "patch_size"}},
      {"key below its range",
       "config.json",
       "\"hidden_size\": 192",
       "\"hidden_size\": 0",
       {"config.json", "hidden_size"}},
      {"10^9 layers",
       "config.json",
       "\"num_hidden_layers\": 4",
       "\"num_hidden_layers\": 1000000000",
       {"num_hidden_layers"}},
      {"unknown architecture", "config.json", "Idefics3For", "Idefics9For", {"config.json", "Idefics9For"}},
      {"heads that do not divide",
       "config.json",
       "\"num_attention_heads\": 4",
       "\"num_attention_heads\": 5",
       {"config.json"}},
      {"another image token",
       "config.json",
       "\"image_token_id\": 1360",
       "\"image_token_id\": 12",
       {"image_token_id", "1360"}},
      {"no processor", "processor_config.json", "", "", {"processor"}},
      {"processor of another model",
       "processor_config.json",
       "\"image_seq_len\": 16",
       "\"image_seq_len\": 64",
       {"64", "16"}},
      {"no tokenizer", "tokenizer.json", "", "", {"tokenizer.json", "No such file"}},
      {"no chat template", "chat_template.jinja", "", "", {"chat template", "add chat_template.jinja"}},
      {"broken chat template", "chat_template.jinja", "{% for", "{% fro", {"chat"}},
      {"no weights", "model.safetensors", "", "", {"model.safetensors"}},
      {"another shape", "config.json", "\"vocab_size\": 1920", "\"vocab_size\": 1900", {"embed_tokens", "1920"}},
      {"lying shape", "model.safetensors", "[1920,192]", "[1920,193]", {"model.safetensors", "embed_tokens"}},
      {"lying offset", "model.safetensors", "[0,442368]", "[0,442367]", {"model.safetensors"}},
      {"unknown format of numbers", "model.safetensors", "\"BF16\"", "\"BF17\"", {"model.safetensors", "BF17"}},
      {"renamed tensor",
       "model.safetensors",
       "modality_projection",
       "modality_projectiom",
       {"modality_projection", "missing"}},
  };
  for (const Damage& damage : damages) {
    const ScratchFolder scratch;
    const auto model = scratch.copy_model(tiny_cards());
    if (damage.from.empty()) {
      std::filesystem::remove(model / damage.file);
    } else {
      scratch.write("model/" + damage.file, replaced(read(model / damage.file), damage.from, damage.to));
    }
    expect_refused({damage.what, {"generate", model.string(), "-p", "Hi", "--max-tokens", "1"}, 4, damage.words});
  }
  expect_refused(
      {"no folder", {"generate", "/no/model", "-p", "x"}, 4, {"/no/model", "no such model folder", "config.json"}});
  expect_refused({"a file", {"show", kCard}, 4, {"01.png", "no such model folder"}});
  for (const char* verb : {"show", "doctor", "chat", "tokenize", "detokenize"})
    expect_refused({verb, {verb, "/no/model"}, 4, {"/no/model"}});
}

TEST(Refusals, weights_that_are_cut_off_or_not_numbers) {
  const ScratchFolder scratch;
  const auto model = scratch.copy_model(tiny_cards());
  const std::string bytes = read(model / "model.safetensors");
  const Arguments ask = {"generate", model.string(), "-p", "Hi", "--max-tokens", "1"};
  for (const size_t size : {size_t{0}, size_t{7}, size_t{8}, size_t{500}, bytes.size() / 2, bytes.size() - 1}) {
    scratch.write("model/model.safetensors", bytes.substr(0, size));
    expect_refused({"cut at " + std::to_string(size), ask, 4, {"model.safetensors"}});
  }
  std::string nan = bytes;
  nan.replace(nan.size() - 2, 2, "\xc0\x7f");
  scratch.write("model/model.safetensors", nan);
  expect_refused({"NaN", ask, 4, {"NaN", "--allow-nonfinite", "model."}});
  Arguments allowed = ask;
  allowed.push_back("--allow-nonfinite");
  const Outcome outcome = run(allowed);
  EXPECT_TRUE(outcome.err.starts_with("idefics: warning: 1 of the tensors hold NaN or Inf, the first is model."))
      << outcome.err;
}

TEST(Refusals, a_missing_shard) {
  const ScratchFolder scratch;
  const auto model = scratch.copy_model(golden("checkpoints/c_smolvlm"));
  std::filesystem::remove(model / "model-00002-of-00003.safetensors");
  expect_refused(
      {"shard", {"generate", model.string(), "-p", "Hi"}, 4, {"model-00002-of-00003.safetensors", "missing"}});
}

TEST(Refusals, output_that_cannot_be_written) {
  const ScratchFolder files;
  const auto file = files.write("file", "");
  expect_refused(
      {"a file in the way", {"tiles", kModel, kCard, "--out", (file / "tiles").string()}, 5, {"file/tiles"}});
  if (::access("/dev/full", W_OK) == 0) {
    const Outcome outcome = run_in_shell("show " + kModel + " > /dev/full");
    EXPECT_EQ(outcome.exit_code, 5);
    EXPECT_EQ(outcome.err, "idefics: error: standard output: cannot write: No space left on device\n");
  }
}

}  // namespace
}  // namespace idefics::e2e
