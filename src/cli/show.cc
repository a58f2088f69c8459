// idefics show: what a model folder holds and what it will need.
#include <fmt/format.h>

#include <memory>

#include "base/json.h"
#include "checkpoint/processor_files.h"
#include "cli/memory_estimate.h"
#include "cli/model_folder.h"
#include "cli/shared_flags.h"
#include "cli/terminal.h"
#include "cli/verbs.h"

namespace idefics::cli {

namespace {

struct Show {
  ModelArgument model;
  bool json = false;
};

// Sizes that people send: screens, photographs, pages.
struct PictureSize {
  const char* name;
  int width, height;
};
constexpr PictureSize kPictures[] = {
    {"thumbnail", 256, 256},          {"VGA", 640, 480},
    {"square", 1024, 1024},           {"HD screen", 1280, 720},
    {"full HD screen", 1920, 1080},   {"phone screen", 1080, 2400},
    {"A4 page, 144 dpi", 1191, 1684}, {"A4 page, 300 dpi", 2480, 3508},
    {"photograph", 4000, 3000},
};

json::object vision_json(const Idefics3VisionConfig& v) {
  return {{"layers", v.num_hidden_layers},  {"hidden_size", v.hidden_size}, {"intermediate_size", v.intermediate_size},
          {"heads", v.num_attention_heads}, {"head_dim", v.head_dim},       {"image_size", v.image_size},
          {"patch_size", v.patch_size},     {"activation", v.hidden_act}};
}

json::object text_json(const Llama3Config& t) {
  return {{"layers", t.num_hidden_layers},
          {"hidden_size", t.hidden_size},
          {"intermediate_size", t.intermediate_size},
          {"heads", t.num_attention_heads},
          {"kv_heads", t.num_key_value_heads},
          {"head_dim", t.head_dim},
          {"vocab_size", t.vocab_size},
          {"max_position_embeddings", t.max_position_embeddings},
          {"rope_theta", t.rope_theta},
          {"rope_scaling", t.rope_scaling_params ? "llama3" : "none"},
          {"tied_head", t.tie_word_embeddings}};
}

json::object weights_json(const ModelFolder& model) {
  const Checkpoint::Totals totals = model.checkpoint.totals();
  const Parameters p = count_parameters(model.config, model.checkpoint);
  json::object bytes;
  for (const auto& [dtype, count] : totals.bytes) bytes[stored_dtype_name(dtype)] = count;
  return {{"tensors", totals.tensors},
          {"bytes", std::move(bytes)},
          {"parameters",
           json::object{{"vision", p.vision}, {"connector", p.connector}, {"text", p.text}, {"total", p.total()}}},
          {"unused", json::value_from(model.unused_tensors)}};
}

json::object memory_json(const ModelFolder& model) {
  json::object out;
  for (const Format format : {Format::kF32, Format::kBf16, Format::kInt8, Format::kQ8, Format::kQ4}) {
    const MemoryEstimate m = estimate_memory(model.config, model.checkpoint, format);
    out[kernels::name_of(format)] = json::object{{"weights", m.weights},
                                                 {"kv_per_1024_tokens", m.kv_per_1024_tokens},
                                                 {"kv_full_context", m.kv_full_context},
                                                 {"scratch", m.scratch},
                                                 {"total", m.total()}};
  }
  return out;
}

json::array pictures_json(const Processor& processor) {
  json::array out;
  for (const PictureSize& size : kPictures) {
    const Processor::ImageCost cost = processor.image_cost(size.width, size.height);
    out.emplace_back(json::object{{"name", size.name},
                                  {"width", size.width},
                                  {"height", size.height},
                                  {"rows", cost.rows},
                                  {"cols", cost.cols},
                                  {"tiles", cost.tiles},
                                  {"image_tokens", cost.image_tokens},
                                  {"tokens", cost.tokens}});
  }
  return out;
}

json::object tokenizer_json(const Processor& processor) {
  json::array stops;
  for (const int32_t id : processor.stop_ids())
    stops.emplace_back(json::object{{"id", id}, {"text", processor.detokenize(std::span(&id, 1), false)}});
  return {{"vocab_size", processor.vocab_size()},
          {"image_token_id", processor.image_token_id()},
          {"stop", std::move(stops)}};
}

// Everything that is shown; the text below is another way of writing it.
json::object describe(const std::string& folder) {
  const ModelFolder model = ModelFolder::open(folder);
  const Processor processor = Processor::load(folder);
  const ImageProcessorConfig& image = processor.config().image;
  return {{"folder", folder},
          {"architecture", architecture_name(model.config.architecture)},
          {"vision", vision_json(model.config.vision_config)},
          {"connector", json::object{{"scale_factor", model.config.scale_factor},
                                     {"image_tokens_per_tile", model.config.image_seq_len()}}},
          {"text", text_json(model.config.text_config)},
          {"weights", weights_json(model)},
          {"tokenizer", tokenizer_json(processor)},
          {"chat_template", find_chat_template(folder).has_value()},
          {"processor", json::object{{"longest_edge", image.longest_edge},
                                     {"tile_side", image.max_image_size},
                                     {"splitting", image.do_image_splitting}}},
          {"memory", memory_json(model)},
          {"pictures", pictures_json(processor)}};
}

std::string plain(const json::value& value) {
  return value.is_string() ? std::string(value.as_string()) : json::serialize(value);
}

int64_t whole(const json::object& object, std::string_view key) { return object.at(key).to_number<int64_t>(); }

std::string bytes_text(int64_t bytes) {
  if (bytes < 10 << 10) return fmt::format("{} B", bytes);
  if (bytes < 10 << 20) return fmt::format("{:.1f} KiB", static_cast<double>(bytes) / (1 << 10));
  if (bytes < int64_t{10} << 30) return fmt::format("{:.1f} MiB", static_cast<double>(bytes) / (1 << 20));
  return fmt::format("{:.1f} GiB", static_cast<double>(bytes) / (1 << 30));
}

std::string towers_text(const json::object& o) {
  const json::object &v = o.at("vision").as_object(), &c = o.at("connector").as_object(), &t = o.at("text").as_object();
  return fmt::format(
      "vision         {} layers, width {}, {} heads of {}, MLP {}; tiles of {} pixels in patches of {}\n"
      "connector      {} image tokens a tile (scale factor {})\n"
      "text           {} layers, width {}, {} heads and {} key/value heads of {}, MLP {}\n"
      "context        {} tokens, rope theta {:g}, scaling {}\n",
      whole(v, "layers"), whole(v, "hidden_size"), whole(v, "heads"), whole(v, "head_dim"),
      whole(v, "intermediate_size"), whole(v, "image_size"), whole(v, "patch_size"), whole(c, "image_tokens_per_tile"),
      whole(c, "scale_factor"), whole(t, "layers"), whole(t, "hidden_size"), whole(t, "heads"), whole(t, "kv_heads"),
      whole(t, "head_dim"), whole(t, "intermediate_size"), whole(t, "max_position_embeddings"),
      t.at("rope_theta").as_double(), plain(t.at("rope_scaling")));
}

std::string weights_text(const json::object& o) {
  const json::object &w = o.at("weights").as_object(), &p = w.at("parameters").as_object();
  std::string stored;
  for (const auto& [dtype, bytes] : w.at("bytes").as_object())
    stored += fmt::format("{}{} {}", stored.empty() ? "" : ", ", std::string_view(dtype), bytes_text(bytes.as_int64()));
  const size_t unused = w.at("unused").as_array().size();
  return fmt::format("parameters     {} (vision {}, connector {}, text {})\nweights        {} tensors: {}; head {}{}\n",
                     whole(p, "total"), whole(p, "vision"), whole(p, "connector"), whole(p, "text"),
                     whole(w, "tensors"), stored,
                     o.at("text").at("tied_head").as_bool() ? "tied to the embedding" : "of its own",
                     unused > 0 ? fmt::format("; {} tensors are not used", unused) : "");
}

std::string words_text(const json::object& o) {
  const json::object& t = o.at("tokenizer").as_object();
  std::string stops;
  for (const json::value& stop : t.at("stop").as_array())
    stops += fmt::format("{}{} {}", stops.empty() ? "" : ", ", whole(stop.as_object(), "id"), plain(stop.at("text")));
  const json::object& p = o.at("processor").as_object();
  return fmt::format(
      "tokenizer      {} tokens, answers end at {}\nchat template  {}\npictures       resized to {} pixels, {} tiles "
      "of {}\n",
      whole(t, "vocab_size"), stops, o.at("chat_template").as_bool() ? "yes" : "no", whole(p, "longest_edge"),
      p.at("splitting").as_bool() ? "cut into" : "one of the", whole(p, "tile_side"));
}

std::string memory_text(const json::object& o) {
  std::string out = "\nMemory\n  format     weights    KV per 1k    KV at full context    scratch      total\n";
  for (const auto& [name, value] : o.at("memory").as_object()) {
    const json::object& m = value.as_object();
    out += fmt::format("  {:<6} {:>11} {:>12} {:>21} {:>10} {:>10}\n", std::string_view(name),
                       bytes_text(whole(m, "weights")), bytes_text(whole(m, "kv_per_1024_tokens")),
                       bytes_text(whole(m, "kv_full_context")), bytes_text(whole(m, "scratch")),
                       bytes_text(whole(m, "total")));
  }
  return out;
}

std::string pictures_text(const json::object& o) {
  std::string out = "\nPictures\n  kind                     size      grid   tiles   tokens\n";
  for (const json::value& value : o.at("pictures").as_array()) {
    const json::object& p = value.as_object();
    out += fmt::format("  {:<18} {:>11} {:>9} {:>7} {:>8}\n", plain(p.at("name")),
                       fmt::format("{}x{}", whole(p, "width"), whole(p, "height")),
                       fmt::format("{}x{}", whole(p, "rows"), whole(p, "cols")), whole(p, "tiles"), whole(p, "tokens"));
  }
  return out;
}

std::string to_text(const json::object& o) {
  return fmt::format("model          {}\narchitecture   {}\n", plain(o.at("folder")), plain(o.at("architecture"))) +
         towers_text(o) + weights_text(o) + words_text(o) + memory_text(o) + pictures_text(o);
}

int run(const Show& options) {
  options.model.require();
  const json::object description = describe(options.model.folder);
  print(options.json ? json::serialize(description) + "\n" : to_text(description));
  return 0;
}

}  // namespace

void add_show(CommandLine& line) {
  Verb& verb =
      line.add_verb("show", "Show what a model folder holds and what it needs.", "idefics show models/tiny-cards",
                    "Reads headers and small files only: architecture, sizes, tokenizer, the memory that "
                    "loading will take in each number format, and how many tokens pictures of usual sizes "
                    "become.");
  const auto options = std::make_shared<Show>();
  options->model.describe(verb);
  verb.group("Output");
  verb.flag("--json", "Print one JSON object", options->json);
  verb.action([options] { return run(*options); });
}

}  // namespace idefics::cli
