// Placeholders become blocks of tokens: the expanded text, its ids and counts, and which calls are refused.
#include <unistd.h>

#include <map>

#include "base/sha256.h"
#include "golden.h"
#include "idefics/processor.h"
#include "image/tiles.h"
#include "processor/expansion.h"
#include "text/tokenizer.h"

namespace idefics {
namespace {

const Tokenizer& tokenizer(const std::string& name) {
  static std::map<std::string, Tokenizer> loaded;
  const auto found = loaded.find(name);
  if (found != loaded.end()) return found->second;
  const auto path = golden::data("tokenizer/" + name + "/tokenizer.json");
  return loaded.emplace(name, Tokenizer::parse(read_file(path, Tokenizer::kMaxFileBytes), path.string())).first->second;
}

std::vector<Grid> grids_of(const json::object& row) {
  std::vector<Grid> grids;
  if (const json::value* given = row.if_contains("grids")) {
    for (const json::value& g : given->as_array())
      grids.push_back({g.at(0).to_number<int>(), g.at(1).to_number<int>()});
    return grids;
  }
  ImageProcessorConfig config;
  config.longest_edge = row.at("L").to_number<int>();
  config.max_image_size = row.at("M").to_number<int>();
  for (const json::value& size : row.at("sizes").as_array()) {
    const FramePlan plan = plan_frames(size.at(0).to_number<int>(), size.at(1).to_number<int>(), config);
    grids.push_back({plan.rows, plan.cols});
  }
  return grids;
}

json::array runs_of(const std::vector<int32_t>& ids) {
  json::array runs;
  for (size_t i = 0; i < ids.size();) {
    size_t end = i;
    while (end < ids.size() && ids[end] == ids[i]) ++end;
    runs.emplace_back(json::array{int64_t{ids[i]}, static_cast<int64_t>(end - i)});
    i = end;
  }
  return runs;
}

// The reference's Idefics3 processor adds <end_of_utterance> to a vocabulary that lacks it, as an id behind the last
// one (and outside of the model's embeddings). Ours does not: the test cuts the text there and puts that id.
std::vector<int32_t> encode_like_the_reference(const Tokenizer& t, std::string_view text) {
  constexpr std::string_view kEnd = "<end_of_utterance>";
  if (t.find_token(kEnd)) return t.encode(text);
  std::vector<int32_t> ids;
  for (size_t at = 0;;) {
    const size_t end = text.find(kEnd, at);
    const auto piece = t.encode(text.substr(at, end - at));
    ids.insert(ids.end(), piece.begin(), piece.end());
    if (end == std::string_view::npos) return ids;
    ids.push_back(t.vocab_size());
    at = end + kEnd.size();
  }
}

std::string verdict(const json::object& row) {
  const std::string text(row.at("text").as_string());
  const std::vector<Grid> grids = grids_of(row);
  const auto places = find_placeholders(text, {});
  if (places.size() != grids.size()) return "finds " + std::to_string(places.size()) + " places";
  const std::string expanded = expand_placeholders(text, {}, places, grids, row.at("S").to_number<int>()).text;
  const Tokenizer& t = tokenizer(std::string(row.at("tokenizer").as_string()));
  if (const json::value* want = row.if_contains("ids")) {  // a whole call of the processor: special tokens are added
    const auto whole = t.encode(expanded, {.add_special_tokens = true, .untrusted = false});
    return json::value_to<std::vector<int32_t>>(*want) == whole ? "" : "other ids";
  }
  const auto ids = encode_like_the_reference(t, expanded);
  if (const json::value* want = row.if_contains("expanded"); want && want->as_string() != expanded)
    return "expands to " + expanded;
  if (row.at("expanded_sha256").as_string() != sha256_hex(expanded)) return "expands to another text";
  if (runs_of(ids) != row.at("runs").as_array()) return "other ids: " + json::serialize(runs_of(ids));
  const auto images = std::count(ids.begin(), ids.end(), t.find_token("<image>"));
  return images == row.at("image_tokens").to_number<int64_t>() ? "" : "other number of image tokens";
}

TEST(PromptsGolden, placeholders_expand_as_in_the_reference) {
  golden::Family family("prompts");
  for (const json::value& row : golden::read_lines("prompts.jsonl")) {
    const std::string problem = verdict(row.as_object());
    family.check(problem.empty(), json::serialize(row.as_object().at("text")) + ": " + problem);
  }
}

// A model folder with just what a Processor reads: tiles of 20 pixels, 4 image tokens each.
class Folder {
 public:
  Folder() : path_(std::filesystem::temp_directory_path() / ("idefics_prompts_" + std::to_string(::getpid()))) {
    std::filesystem::create_directories(path_);
    std::filesystem::copy_file(golden::data("tokenizer/smolvlm/tokenizer.json"), path_ / "tokenizer.json");
    write_file(
        path_ / "config.json",
        R"({"architectures": ["Idefics3ForConditionalGeneration"], "model_type": "idefics3", "image_token_id": 49190,
      "text_config": {"model_type": "llama", "vocab_size": 49280}, "vision_config": {}})");
    write_file(path_ / "processor_config.json",
               R"({"image_seq_len": 4, "image_processor": {"image_processor_type": "Idefics3ImageProcessor",
      "size": {"longest_edge": 40}, "max_image_size": {"longest_edge": 20}}})");
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

// A call of the reference's processor takes texts and pictures in batches; ours takes one prompt. A row is a case for
// ours when it is one text, or several whose pictures are given per text.
struct Call {
  std::vector<std::string> texts;
  std::vector<int> images;  // per text
};
std::optional<Call> call_of(const json::object& row) {
  if (row.contains("options")) return std::nullopt;  // truncation and padding: nothing of the kind exists here
  Call call;
  const json::value &text = row.at("text"), &images = row.at("images");
  if (text.is_string()) {
    call.texts = {std::string(text.as_string())};
  } else if (text.is_array() && text.at(0).is_string()) {
    call.texts = json::value_to<std::vector<std::string>>(text);
  } else {
    return std::nullopt;
  }
  if (call.texts[0].empty() && !row.contains("error"))
    return std::nullopt;  // an empty prompt is refused here (nothing to answer)
  const auto count = [](const json::value& v) { return v.is_array() ? static_cast<int>(v.as_array().size()) : 0; };
  const bool nested = images.is_array() && !images.as_array().empty() && images.at(0).is_array();
  if (nested) {
    for (const json::value& sample : images.as_array()) call.images.push_back(count(sample));
    if (std::all_of(call.images.begin(), call.images.end(), [](int n) { return n == 0; }))
      return std::nullopt;                                             // a batch without pictures
    if (call.images.size() != call.texts.size()) return std::nullopt;  // a list for each text is a matter of batches
  } else if (call.texts.size() > 1) {
    return std::nullopt;  // a flat list that the reference distributes
  } else if (images.is_string()) {
    call.images = {-1};  // something that is no picture
  } else {
    call.images = {images.is_number() ? 1 : count(images)};
  }
  return call;
}

TEST(PromptsGolden, calls_are_refused_where_the_reference_refuses_them) {
  golden::Family family("processor calls");
  const Folder folder;
  const Processor processor = Processor::load(folder.path());
  const std::string picture = encode_png(std::vector<uint8_t>(20 * 20 * 3, 100), 20, 20);
  for (const json::value& value : golden::read_lines("errors.jsonl")) {
    const json::object& row = value.as_object();
    const auto call = call_of(row);
    if (!call) continue;
    std::string refused;
    std::vector<int64_t> lengths;
    try {
      for (size_t i = 0; i < call->texts.size(); ++i) {
        const int n = call->images[i];
        const std::vector<std::string> files(static_cast<size_t>(std::abs(n)), n < 0 ? "text" : picture);
        lengths.push_back(std::ssize(processor.raw_prompt(call->texts[i], files).ids));
      }
    } catch (const Error& e) {
      refused = e.what();
    }
    const bool good = row.contains("error")
                          ? !refused.empty()
                          : refused.empty() && json::value_from(lengths) == row.at("ok").at("input_ids");
    family.check(good, json::serialize(row) + ": " + refused);
  }
}

}  // namespace
}  // namespace idefics
