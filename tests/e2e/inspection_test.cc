// The verbs that look without answering: show, doctor, tiles, render, tokenize, detokenize.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstring>

#include "base/sha256.h"
#include "program.h"

namespace idefics::e2e {
namespace {

const std::string kModel = tiny_cards().string();
std::string sample(const std::string& name) { return (tiny_cards() / "samples" / name).string(); }
std::string text(const json::value& row, std::string_view key) { return std::string(row.at(key).as_string()); }

// ---- show ----------------------------------------------------------------------------------------------------------

TEST(Show, tells_what_is_in_the_card_model) {
  const json::value out = parse_output(run({"show", kModel, "--json"}));
  EXPECT_EQ(text(out, "architecture"), "Idefics3ForConditionalGeneration");
  EXPECT_EQ(out.at("vision").at("layers"), 4);
  EXPECT_EQ(out.at("text").at("kv_heads"), 1);
  EXPECT_EQ(out.at("text").at("tied_head"), true);
  EXPECT_EQ(out.at("weights").at("parameters").at("total"), 3031616);
  EXPECT_EQ(out.at("weights").at("bytes").at("BF16"), 6063232);
  EXPECT_EQ(out.at("tokenizer").at("stop").at(0).at("text"), "<end_of_utterance>");
  EXPECT_EQ(out.at("chat_template"), true);
  EXPECT_EQ(out.at("memory").at("bf16").at("kv_per_1024_tokens"), 4 * 2 * 64 * 2 * 1024);
  const Outcome plain = run({"show", kModel});
  EXPECT_EQ(plain.exit_code, 0);
  for (const char* word : {"Idefics3ForConditionalGeneration", "3031616", "tied to the embedding", "<end_of_utterance>",
                           "A4 page", "KV per 1k"})
    EXPECT_NE(plain.out.find(word), std::string::npos) << word;
}

TEST(Show, knows_every_checkpoint) {
  for (const auto& model : all_models()) {
    EXPECT_EQ(run({"show", model.string()}).exit_code, 0) << model;
    const json::value out = parse_output(run({"show", model.string(), "--json"}));
    EXPECT_FALSE(out.at("pictures").as_array().empty()) << model;
  }
}

TEST(Show, reads_no_weights) {
  // A file whose bytes are a hole: the header is real, 6 MB of NaN would be found by anyone who looked.
  const ScratchFolder scratch;
  const auto model = scratch.copy_model(tiny_cards());
  std::string bytes = read(model / "model.safetensors");
  uint64_t header = 0;
  std::memcpy(&header, bytes.data(), 8);
  std::fill(bytes.begin() + 8 + static_cast<std::ptrdiff_t>(header), bytes.end(), '\xff');
  scratch.write("model/model.safetensors", bytes);
  EXPECT_EQ(run({"show", model.string()}).exit_code, 0);
}

// ---- doctor --------------------------------------------------------------------------------------------------------

std::string verdict(const json::value& report, std::string_view subject) {
  for (const json::value& check : report.at("checks").as_array()) {
    if (text(check, "subject") == subject) return text(check, "verdict");
  }
  return "no such check";
}

// The report of a damaged copy, which must be an error.
json::value diagnose(const std::filesystem::path& model) {
  const Outcome outcome = run({"doctor", model.string(), "--json"});
  EXPECT_EQ(outcome.exit_code, 4);
  EXPECT_EQ(run({"doctor", model.string()}).exit_code, 4);
  return parse_json(outcome.out, "report");
}

TEST(Doctor, finds_every_checkpoint_sound) {
  for (const auto& model : all_models()) {
    const Outcome outcome = run({"doctor", model.string()});
    EXPECT_EQ(outcome.exit_code, 0) << model << "\n" << outcome.out;
    const json::value report = parse_output(run({"doctor", model.string(), "--json"}));
    EXPECT_EQ(report.at("errors"), 0) << model;
    EXPECT_EQ(report.at("warnings"), model.filename() == "f_granite" ? 1 : 0) << model;
    EXPECT_EQ(report.at("checks").as_array().size(), 12u);
  }
}

TEST(Doctor, goes_on_after_the_first_error_and_says_how_to_mend_each) {
  const ScratchFolder scratch;
  const auto model = scratch.copy_model(tiny_cards());
  std::filesystem::remove(model / "tokenizer.json");
  scratch.write("model/config.json",
                replaced(read(model / "config.json"), "\"vocab_size\": 1920", "\"vocab_size\": 1921"));
  const json::value report = diagnose(model);
  EXPECT_EQ(verdict(report, "config.json"), "ok");
  EXPECT_EQ(verdict(report, "tokenizer.json"), "error");
  EXPECT_EQ(verdict(report, "tensors"), "error");
  EXPECT_EQ(verdict(report, "values"), "ok");
  EXPECT_EQ(verdict(report, "chat template"), "skipped");
  EXPECT_EQ(report.at("errors"), 2);
  for (const json::value& check : report.at("checks").as_array()) {
    if (check.at("verdict") == "error") {
      EXPECT_FALSE(text(check, "mend").empty());
    }
  }
}

TEST(Doctor, tells_each_kind_of_damage_by_its_check) {
  struct Damage {
    const char *file, *from, *to;  // from empty: the file is removed
    const char *subject, *verdict;
  };
  constexpr Damage kDamages[] = {
      {"config.json", "\"hidden_size\": 192", "\"hidden_size\": -1", "config.json", "error"},
      {"config.json", "", "", "config.json", "error"},
      {"config.json", "\"image_token_id\": 1360", "\"image_token_id\": 7", "image token", "error"},
      {"config.json", "\"scale_factor\": 3", "\"scale_factor\": 2", "processor and model", "error"},
      {"generation_config.json", "{", "", "generation_config.json", "error"},
      {"generation_config.json", "", "", "generation_config.json", "warning"},
      {"generation_config.json", "\"eos_token_id\": 1357", "\"eos_token_id\": 5000", "token ids", "warning"},
      {"processor_config.json", "\"image_seq_len\": 16", "\"image_seq_len\": 17", "processor and model", "error"},
      {"processor_config.json", "", "", "processor files", "error"},
      {"tokenizer_config.json", "", "", "tokenizer_config.json", "warning"},
      {"tokenizer_config.json", "{", "[", "tokenizer_config.json", "error"},
      {"tokenizer.json", "\"version\"", "\"version", "tokenizer.json", "error"},
      {"chat_template.jinja", "endfor %}", "endfo %}", "chat template", "error"},
      {"chat_template.jinja", "", "", "chat template", "error"},
      {"model.safetensors", "", "", "weights", "error"},
      {"model.safetensors", "[1920,192]", "[1920,191]", "weights", "error"},
  };
  for (const Damage& damage : kDamages) {
    const ScratchFolder scratch;
    const auto model = scratch.copy_model(tiny_cards());
    if (*damage.from == '\0') {
      std::filesystem::remove(model / damage.file);
    } else {
      scratch.write(std::string("model/") + damage.file, replaced(read(model / damage.file), damage.from, damage.to));
    }
    const Outcome outcome = run({"doctor", model.string(), "--json"});
    EXPECT_EQ(outcome.exit_code, std::string(damage.verdict) == "error" ? 4 : 0) << damage.file << " " << damage.to;
    EXPECT_EQ(verdict(parse_json(outcome.out, "report"), damage.subject), damage.verdict)
        << damage.file << " " << damage.from << " " << outcome.out;
  }
}

TEST(Doctor, finds_a_nan_in_the_weights) {
  const ScratchFolder scratch;
  const auto model = scratch.copy_model(tiny_cards());
  std::string bytes = read(model / "model.safetensors");
  bytes.replace(bytes.size() / 2 & ~size_t{1}, 2, "\xc0\x7f");
  scratch.write("model/model.safetensors", bytes);
  EXPECT_EQ(verdict(diagnose(model), "values"), "error");
}

// ---- tiles ---------------------------------------------------------------------------------------------------------

std::string preset_model(const ScratchFolder& scratch, const std::string& name, int tile, int edge) {
  // Only the processor is asked, so its file decides; the model behind it stays what it is.
  const auto model = scratch.copy_model(tiny_cards(), name);
  std::string file = replaced(read(model / "processor_config.json"), "\"longest_edge\": 144",
                              fmt::format("\"longest_edge\": {}", tile));
  file = replaced(file, "\"longest_edge\": 288", fmt::format("\"longest_edge\": {}", edge));
  scratch.write(name + "/processor_config.json", file);
  return model.string();
}

TEST(Tiles, hashes_are_those_of_the_reference) {
  const ScratchFolder scratch;
  const std::string model = preset_model(scratch, "m", 20, 40);
  int cases = 0;
  for (const json::value& row : read_rows(golden("images/cases.jsonl"))) {
    const json::value* frames = row.as_object().if_contains("frames");
    if (frames == nullptr || row.as_object().contains("damaged")) continue;
    const std::string file = golden("images/" + text(row, "file")).string();
    const json::value one = parse_output(run({"tiles", model, file, "--no-image-splitting", "--json"}));
    EXPECT_EQ(one.at("sha256"), frames->at("20/40")) << file;
    EXPECT_EQ(one.at("count"), 1);
    const json::value split = parse_output(run({"tiles", model, file, "--json"}));
    EXPECT_EQ(split.at("rows"), row.at("split").at("20/40").at(0)) << file;
    EXPECT_EQ(split.at("cols"), row.at("split").at("20/40").at(1)) << file;
    EXPECT_EQ(split.at("sha256"), row.at("split").at("20/40").at(2)) << file;
    ++cases;
  }
  EXPECT_GT(cases, 50);
}

TEST(Tiles, each_tile_can_be_written_as_a_png_of_the_same_bytes) {
  const ScratchFolder scratch;
  const std::string folder = (scratch.path() / "new" / "tiles").string();
  const json::value out = parse_output(run({"tiles", kModel, sample("01.png"), "--out", folder, "--json"}));
  ASSERT_EQ(out.at("tiles").as_array().size(), 5u);
  EXPECT_EQ(out.at("width"), 256);
  EXPECT_EQ(out.at("resized"), json::value({288, 288}));
  // A tile is a picture that needs no resizing, so cutting it gives its own bytes back.
  for (const json::value& tile : out.at("tiles").as_array()) {
    const std::string file = folder + "/" + text(tile, "name") + ".png";
    const json::value again =
        parse_output(run({"tiles", kModel, file, "--no-image-splitting", "--longest-edge", "144", "--json"}));
    EXPECT_EQ(again.at("sha256"), tile.at("sha256")) << file;
  }
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder), {}), 5);
  EXPECT_TRUE(std::filesystem::exists(folder + "/tile_2_1.png"));
  EXPECT_TRUE(std::filesystem::exists(folder + "/global.png"));
}

TEST(Tiles, plain_text_says_the_same) {
  const Outcome outcome = run({"tiles", kModel, sample("01.png")});
  EXPECT_EQ(outcome.exit_code, 0);
  for (const char* word : {"256 x 256", "2 rows x 2 columns", "tile_1_2", "global"})
    EXPECT_NE(outcome.out.find(word), std::string::npos) << word;
}

// ---- render --------------------------------------------------------------------------------------------------------

// The messages of a golden case with the files of its pictures.
std::string messages_file(const ScratchFolder& scratch, const json::value& row, const std::filesystem::path& folder) {
  json::array messages = row.at("messages").as_array();
  size_t next = 0;
  for (json::value& message : messages) {
    for (json::value& part : message.at("content").as_array()) {
      if (part.at("type") == "image")
        part.as_object()["path"] = (folder / std::string(row.at("pictures").at(next++).as_string())).string();
    }
  }
  return scratch.write("messages.json", json::serialize(messages)).string();
}

TEST(Render, ids_are_those_of_the_reference) {
  const ScratchFolder scratch;
  int cases = 0;
  for (const auto& model : all_models()) {
    const std::filesystem::path folder = golden("stages") / model.filename();
    if (!std::filesystem::exists(folder)) continue;
    for (const json::value& row : read_rows(folder / "cases.jsonl")) {
      std::vector<std::string> arguments = {"render", model.string(), "--json", "--messages",
                                            messages_file(scratch, row, folder)};
      if (!row.at("split").as_bool()) arguments.push_back("--no-image-splitting");
      const json::value out = parse_output(run(arguments));
      EXPECT_EQ(out.at("ids"), row.at("ids")) << model << " " << row.at("case");
      ++cases;
    }
  }
  EXPECT_EQ(cases, 24);
}

TEST(Render, plain_text_ends_with_the_ids_on_a_line) {
  const ScratchFolder scratch;
  const auto file = scratch.write("m.json", R"([{"role": "user", "content": "Hi <image>"}])");
  const Outcome outcome = run({"render", kModel, "--messages", file.string()});
  EXPECT_EQ(
      outcome.out,
      "<|im_start|>User: Hi <image><end_of_utterance>\nAssistant:\n" +
          json::serialize(parse_output(run({"render", kModel, "--messages", file.string(), "--json"})).at("ids")) +
          "\n");
  EXPECT_EQ(outcome.out.find("1360"), std::string::npos) << "what a user writes is no place for a picture";
}

// ---- tokenize, detokenize ------------------------------------------------------------------------------------------

// A model folder with another tokenizer; only the tokenizer is asked. Its <image> must be the model's.
std::string tokenizer_model(const ScratchFolder& scratch, const std::string& name) {
  const auto model = scratch.copy_model(tiny_cards(), name);
  const std::string file = read(golden("tokenizer/" + name + "/tokenizer.json"));
  scratch.write(name + "/tokenizer.json", file);
  int64_t id = -1;
  const json::value tokenizer = parse_json(file, name);
  for (const json::value& token : tokenizer.at("added_tokens").as_array()) {
    if (token.at("content") == "<image>") id = token.at("id").as_int64();
  }
  std::string config =
      replaced(read(model / "config.json"), "\"image_token_id\": 1360", fmt::format("\"image_token_id\": {}", id));
  scratch.write(name + "/config.json", replaced(config, "\"vocab_size\": 1920", "\"vocab_size\": 200000"));
  return model.string();
}

std::string lines(const json::array& values) {
  std::string out;
  for (const json::value& value : values) out += json::serialize(value) + "\n";
  return out;
}

TEST(Tokenize, lines_are_those_of_the_reference_there_and_back) {
  for (const char* name : {"smolvlm", "llama3", "granite"}) {
    const ScratchFolder scratch;
    const std::string model = tokenizer_model(scratch, name);
    json::array texts, ids, special, untrusted, decoded, decoded_skip;
    for (const json::value& row : read_rows(golden(std::string("tokenizer/") + name + "/cases.jsonl"))) {
      const auto get = [&](const char* key, const char* otherwise) {
        const json::value* value = row.as_object().if_contains(key);
        return value ? *value : row.at(otherwise);
      };
      texts.push_back(row.at("text"));
      ids.push_back(row.at("ids"));
      special.push_back(get("ids_special", "ids"));
      untrusted.push_back(get("ids_untrusted", "ids"));
      decoded.push_back(row.at("decoded"));
      decoded_skip.push_back(get("decoded_skip", "decoded"));
    }
    ASSERT_GT(texts.size(), 500u);
    EXPECT_EQ(run({"tokenize", model, "--jsonl"}, {.input = lines(texts)}).out, lines(ids)) << name;
    EXPECT_EQ(run({"tokenize", model, "--jsonl", "--special"}, {.input = lines(texts)}).out, lines(special)) << name;
    EXPECT_EQ(run({"tokenize", model, "--jsonl", "--untrusted"}, {.input = lines(texts)}).out, lines(untrusted))
        << name;
    EXPECT_EQ(run({"detokenize", model, "--jsonl"}, {.input = lines(special)}).out, lines(decoded)) << name;
    EXPECT_EQ(run({"detokenize", model, "--jsonl", "--skip-special"}, {.input = lines(special)}).out,
              lines(decoded_skip))
        << name;
  }
}

TEST(Tokenize, one_text_comes_as_argument_or_on_standard_input) {
  EXPECT_EQ(run({"tokenize", kModel, "Hello, world!"}).out, "[40,732,79,12,956,553,1]\n");
  EXPECT_EQ(run({"tokenize", kModel}, {.input = "Hello, world!"}).out, "[40,732,79,12,956,553,1]\n");
  EXPECT_EQ(run({"tokenize", kModel, ""}).out, "[]\n");
  EXPECT_EQ(run({"detokenize", kModel, "[40,732,79,12,956,553,1]"}).out, "Hello, world!\n");
  EXPECT_EQ(run({"detokenize", kModel}, {.input = "[1356, 40]\n"}).out, "<|im_start|>H\n");
  EXPECT_EQ(run({"detokenize", kModel, "--skip-special", "[1356, 40]"}).out, "H\n");
}

}  // namespace
}  // namespace idefics::e2e
