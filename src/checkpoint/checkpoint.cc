#include "checkpoint/checkpoint.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <set>

#include "base/json.h"
#include "idefics/error.h"

namespace idefics {

namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxIndexBytes = uint64_t{1} << 24;
constexpr size_t kMaxShards = 1000;
constexpr std::string_view kHead = "lm_head.weight";
constexpr std::string_view kEmbedding = "model.text_model.embed_tokens.weight";
constexpr std::string_view kPatchEmbedding = "model.vision_model.embeddings.patch_embedding.weight";

[[noreturn]] void fail(const std::string& message) { throw Error(ErrorCode::kBadModel, message); }

// ---- The index -----------------------------------------------------------------------------------------------------

// A plain file name, so that it can only mean a file of the folder itself.
bool is_shard_name(std::string_view name) {
  return name.size() <= 255 && name.ends_with(".safetensors") && !name.starts_with('.') &&
         std::all_of(name.begin(), name.end(), [](char c) { return '!' <= c && c <= '~' && c != '/' && c != '\\'; });
}

fs::path real_path(const fs::path& folder) {
  std::error_code error;
  const fs::path real = fs::canonical(folder, error);
  if (error) fail(fmt::format("{}: cannot be opened: {}", folder.string(), error.message()));
  return real;
}

// The folder that a link in `folder` must not leave: in a Hugging Face cache (models--org--name/snapshots/<revision>)
// the repository, which holds the blobs, too; elsewhere the folder itself.
fs::path boundary_of(const fs::path& folder) {
  const fs::path real = real_path(folder), repository = real.parent_path().parent_path();
  const bool in_cache =
      real.parent_path().filename() == "snapshots" && repository.filename().string().starts_with("models--");
  return in_cache ? repository : real;
}

bool is_within(const fs::path& path, const fs::path& folder) {
  return std::mismatch(folder.begin(), folder.end(), path.begin(), path.end()).first == folder.end();
}

// The real path of a shard. It is decided what would be opened before anything is opened.
fs::path resolve_shard(const fs::path& folder, const std::string& name, const std::string& index) {
  std::error_code error;
  const fs::path real = fs::canonical(folder / name, error);
  if (error) fail(fmt::format("{}: names {}, which is missing: {}", index, name, error.message()));
  if (!is_within(real, boundary_of(folder))) {
    fail(
        fmt::format("{}: names {}, a link that leaves the model's folder: replace it by the file itself", index, name));
  }
  if (!fs::is_regular_file(real, error)) fail(fmt::format("{}: names {}, which is not a regular file", index, name));
  return real;
}

using WeightMap = std::map<std::string, std::string, std::less<>>;  // tensor, as the file calls it -> file

WeightMap read_index(const std::string& text, const std::string& where) {
  const json::value root = parse_json(text, where);
  const JsonObject o = JsonObject::of(root, where);
  const std::optional<JsonObject> map = o.find_object("weight_map");
  if (!map || map->raw().empty()) o.fail("weight_map", "is missing or empty");
  WeightMap weights;
  for (const auto& [tensor, file] : map->raw()) {
    const bool good = file.is_string() && is_shard_name(std::string_view(file.get_string()));
    if (!good) {
      fail(fmt::format("{}: weight_map: {} is in {}, wanted the plain name of a .safetensors file in the same folder",
                       where, quote_name(std::string_view(tensor)), describe(file)));
    }
    weights.emplace(std::string(tensor), std::string(file.get_string()));
  }
  return weights;
}

// "model-00001-of-00003.safetensors"
bool looks_like_shard(const std::string& name) {
  constexpr std::string_view kPattern = "model-#####-of-#####.safetensors";
  return name.size() == kPattern.size() && std::equal(name.begin(), name.end(), kPattern.begin(), [](char c, char p) {
           return p == '#' ? '0' <= c && c <= '9' : c == p;
         });
}

void refuse_other_shards(const fs::path& folder, const std::set<std::string>& shards, const std::string& index) {
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (looks_like_shard(name) && !shards.contains(name)) {
      fail(fmt::format("{}: does not name {}, which lies beside it: remove the file or fetch the right index", index,
                       name));
    }
  }
  if (error) fail(fmt::format("{}: cannot be listed: {}", folder.string(), error.message()));
}

// Both directions: every tensor of a shard is listed for it, and every listed tensor is there.
void check_index(const WeightMap& weights, const std::string& shard, const Safetensors& file,
                 const std::string& index) {
  std::set<std::string_view> found;
  for (const TensorInfo& tensor : file.tensors()) {
    const auto listed = weights.find(tensor.name);
    if (listed == weights.end() || listed->second != shard) {
      fail(fmt::format("{}: tensor {} is in {}, but the index says {}", index, quote_name(tensor.name), shard,
                       listed == weights.end() ? "nothing of it" : "it is in " + listed->second));
    }
    found.insert(tensor.name);
  }
  for (const auto& [tensor, name] : weights) {
    if (name == shard && !found.contains(tensor)) {
      fail(fmt::format("{}: tensor {} should be in {}, but is not", index, quote_name(tensor), shard));
    }
  }
}

std::vector<Safetensors> open_shards(const fs::path& folder, const std::string& text, const std::string& index) {
  const WeightMap weights = read_index(text, index);
  std::set<std::string> shards;
  for (const auto& [tensor, shard] : weights) shards.insert(shard);
  if (shards.size() > kMaxShards) fail(fmt::format("{}: names more than {} files", index, kMaxShards));
  refuse_other_shards(folder, shards, index);
  std::vector<fs::path> paths;
  for (const std::string& shard : shards) paths.push_back(resolve_shard(folder, shard, index));
  std::vector<Safetensors> files;
  for (const std::string& shard : shards) {
    files.emplace_back(paths[files.size()]);
    check_index(weights, shard, files.back(), index);
  }
  return files;
}

// ---- Names and shapes ----------------------------------------------------------------------------------------------

// Calls expect(name, shape) for every tensor of the network but the head, vision tower first.
template <typename Expect>
void for_each_linear(const std::string& name, int64_t out, int64_t in, bool bias, Expect& expect) {
  expect(name + ".weight", std::vector<int64_t>{out, in});
  if (bias) expect(name + ".bias", std::vector<int64_t>{out});
}

template <typename Expect>
void for_each_layer_norm(const std::string& name, int64_t width, Expect& expect) {
  expect(name + ".weight", std::vector<int64_t>{width});
  expect(name + ".bias", std::vector<int64_t>{width});
}

template <typename Expect>
void for_each_vision(const Idefics3VisionConfig& v, Expect& expect) {
  const std::string base = "model.vision_model.";
  const int64_t d = v.hidden_size, p = v.patch_size, n = v.image_size / v.patch_size;
  expect(std::string(kPatchEmbedding), std::vector<int64_t>{d, v.num_channels, p, p});
  expect(base + "embeddings.patch_embedding.bias", std::vector<int64_t>{d});
  expect(base + "embeddings.position_embedding.weight", std::vector<int64_t>{n * n, d});
  for (int i = 0; i < v.num_hidden_layers; ++i) {
    const std::string layer = fmt::format("{}encoder.layers.{}.", base, i);
    for_each_layer_norm(layer + "layer_norm1", d, expect);
    for (const char* part : {"q_proj", "k_proj", "v_proj", "out_proj"}) {
      for_each_linear(layer + "self_attn." + part, d, d, true, expect);
    }
    for_each_layer_norm(layer + "layer_norm2", d, expect);
    for_each_linear(layer + "mlp.fc1", v.intermediate_size, d, true, expect);
    for_each_linear(layer + "mlp.fc2", d, v.intermediate_size, true, expect);
  }
  for_each_layer_norm(base + "post_layernorm", d, expect);
  for_each_linear("model.connector.modality_projection.proj", v.text_config_hidden_size,
                  d * v.scale_factor * v.scale_factor, false, expect);
}

template <typename Expect>
void for_each_text(const Llama3Config& t, Expect& expect) {
  const std::string base = "model.text_model.";
  const int64_t h = t.hidden_size, q = int64_t{t.num_attention_heads} * t.head_dim,
                kv = int64_t{t.num_key_value_heads} * t.head_dim;
  expect(std::string(kEmbedding), std::vector<int64_t>{t.vocab_size, h});
  for (int i = 0; i < t.num_hidden_layers; ++i) {
    const std::string layer = fmt::format("{}layers.{}.", base, i);
    expect(layer + "input_layernorm.weight", std::vector<int64_t>{h});
    for_each_linear(layer + "self_attn.q_proj", q, h, t.attention_bias, expect);
    for_each_linear(layer + "self_attn.k_proj", kv, h, t.attention_bias, expect);
    for_each_linear(layer + "self_attn.v_proj", kv, h, t.attention_bias, expect);
    for_each_linear(layer + "self_attn.o_proj", h, q, t.attention_bias, expect);
    expect(layer + "post_attention_layernorm.weight", std::vector<int64_t>{h});
    for_each_linear(layer + "mlp.gate_proj", t.intermediate_size, h, t.mlp_bias, expect);
    for_each_linear(layer + "mlp.up_proj", t.intermediate_size, h, t.mlp_bias, expect);
    for_each_linear(layer + "mlp.down_proj", h, t.intermediate_size, t.mlp_bias, expect);
  }
  expect(base + "norm.weight", std::vector<int64_t>{h});
}

// [D, p, p, 3] becomes [D, 3, p, p] with channels_last. With p = 3 both read the same, and the usual order is meant.
void normalize_patch_embedding(TensorInfo& tensor) {
  std::vector<int64_t>& s = tensor.shape;
  if (s.size() != 4 || s[3] != 3 || s[1] != s[2] || s[1] == 3) return;
  s = {s[0], s[3], s[1], s[2]};
  tensor.channels_last = true;
}

}  // namespace

std::string canonical_name(std::string_view name) {
  constexpr std::string_view kPeft = "base_model.model.";
  if (name.starts_with(kPeft)) name.remove_prefix(kPeft.size());
  if (name.ends_with(".rotary_emb.inv_freq") || name.find("vision_model.head.") != std::string_view::npos) return {};
  constexpr std::pair<std::string_view, std::string_view> kVariants[] = {
      {"language_model.lm_head.", "lm_head."}, {"language_model.", "model.text_model."},
      {"text_model.", "model.text_model."},    {"vision_model.", "model.vision_model."},
      {"connector.", "model.connector."},
  };
  for (const auto& [variant, canonical] : kVariants) {
    if (name.starts_with(variant)) return std::string(canonical).append(name.substr(variant.size()));
  }
  return std::string(name);
}

Checkpoint Checkpoint::open(const fs::path& folder, const Rename& rename) {
  std::error_code error;
  if (!fs::is_directory(folder, error)) fail(fmt::format("{}: no such folder", folder.string()));
  Checkpoint checkpoint;
  checkpoint.where_ = folder.string();
  if (fs::exists(fs::symlink_status(folder / "model.safetensors", error))) {
    checkpoint.files_.emplace_back(folder / "model.safetensors");
  } else {
    const fs::path index = folder / "model.safetensors.index.json";
    const std::optional<std::string> text = find_file(index, kMaxIndexBytes, ErrorCode::kBadModel);
    if (!text) fail(fmt::format("{}: has neither model.safetensors nor model.safetensors.index.json", folder.string()));
    checkpoint.files_ = open_shards(folder, *text, index.string());
  }
  for (const Safetensors& file : checkpoint.files_) checkpoint.add(file, rename);
  return checkpoint;
}

void Checkpoint::add(const Safetensors& file, const Rename& rename) {
  for (const TensorInfo& stored : file.tensors()) {
    std::string name = canonical_name(rename ? rename(stored.name) : stored.name);
    if (name.empty()) continue;
    TensorInfo tensor = stored;
    tensor.name = name;
    if (name == kPatchEmbedding) normalize_patch_embedding(tensor);
    if (!tensors_.emplace(std::move(name), std::move(tensor)).second) {
      fail(fmt::format("{}: tensor {} is there a second time, perhaps under another name", file.where(),
                       quote_name(stored.name)));
    }
  }
}

const TensorInfo* Checkpoint::find(std::string_view name) const {
  const auto found = tensors_.find(name);
  return found == tensors_.end() ? nullptr : &found->second;
}

const TensorInfo& Checkpoint::get(std::string_view name, std::span<const int64_t> shape) const {
  const TensorInfo* tensor = find(name);
  if (tensor == nullptr) {
    fail(fmt::format("{}: tensor {} is missing, wanted {} by config.json", where_, name, describe_shape(shape)));
  }
  if (!std::equal(shape.begin(), shape.end(), tensor->shape.begin(), tensor->shape.end())) {
    fail(fmt::format("{}: tensor {}: wanted {} by config.json, found {} {}", where_, name, describe_shape(shape),
                     describe_shape(tensor->shape), stored_dtype_name(tensor->dtype)));
  }
  if (!is_weight_dtype(tensor->dtype)) {
    fail(fmt::format("{}: tensor {}: wanted F32, F16 or BF16, found {}", where_, name,
                     stored_dtype_name(tensor->dtype)));
  }
  return *tensor;
}

std::vector<std::string> Checkpoint::verify(const Idefics3Config& config) const {
  std::set<std::string_view> needed;
  // Stops at the first that is missing, so a config.json that claims too many layers costs nothing.
  const auto expect = [&](const std::string& name, const std::vector<int64_t>& shape) {
    needed.insert(get(name, shape).name);
  };
  for_each_vision(config.vision_config, expect);
  for_each_text(config.text_config, expect);
  if (find(kHead) != nullptr) {
    expect(std::string(kHead), {config.text_config.vocab_size, config.text_config.hidden_size});
  }
  std::vector<std::string> unused;
  for (const auto& [name, tensor] : tensors_) {
    if (!needed.contains(name)) unused.push_back(name);
  }
  return unused;
}

bool Checkpoint::head_equals_embedding() const {
  const TensorInfo* head = find(kHead);
  const TensorInfo* embedding = find(kEmbedding);
  return head != nullptr && embedding != nullptr && head->dtype == embedding->dtype &&
         head->shape == embedding->shape && same_bytes(head->bytes, embedding->bytes);
}

// Piece by piece, so that two large tensors do not become resident.
bool Checkpoint::same_bytes(std::span<const std::byte> a, std::span<const std::byte> b) const {
  constexpr size_t kPiece = size_t{1} << 20;
  bool same = a.size() == b.size();
  for (size_t at = 0; same && at < a.size(); at += kPiece) {
    const size_t count = std::min(kPiece, a.size() - at);
    same = std::memcmp(a.data() + at, b.data() + at, count) == 0;
    release(a.subspan(at, count));
    release(b.subspan(at, count));
  }
  return same;
}

void Checkpoint::fetch(std::span<const std::byte> part) const {
  if (const MappedFile* file = find_file_of(part)) file->fetch(part);
}

void Checkpoint::release(std::span<const std::byte> part) const {
  if (const MappedFile* file = find_file_of(part)) file->release(part);
}

const MappedFile* Checkpoint::find_file_of(std::span<const std::byte> part) const {
  for (const Safetensors& file : files_) {
    const std::span<const std::byte> all = file.file().bytes();
    if (!part.empty() && part.data() >= all.data() && part.data() < all.data() + all.size()) return &file.file();
  }
  return nullptr;
}

bool Checkpoint::tied_head(bool tie_word_embeddings) const {
  return find(kHead) == nullptr || (tie_word_embeddings && head_equals_embedding());
}

StateDict Checkpoint::state_dict() const {
  StateDict state;
  for (const auto& [name, tensor] : tensors_) {
    if (!is_weight_dtype(tensor.dtype)) continue;
    const DType dtype = tensor.dtype == StoredDType::kF32   ? DType::kF32
                        : tensor.dtype == StoredDType::kF16 ? DType::kF16
                                                            : DType::kBf16;
    state.dtypes.emplace(name, dtype);
  }
  state.head_equals_embedding = head_equals_embedding();
  return state;
}

std::vector<std::string> Checkpoint::find_nonfinite(ThreadPool& pool) const {
  constexpr size_t kPieceBytes = size_t{1} << 20;
  struct Piece {
    const TensorInfo* tensor;
    size_t index;  // of the tensor
    std::span<const std::byte> bytes;
  };
  std::vector<Piece> pieces;
  size_t index = 0;
  for (const auto& [name, tensor] : tensors_) {
    for (size_t at = 0; at < tensor.bytes.size(); at += kPieceBytes) {
      pieces.push_back({&tensor, index, tensor.bytes.subspan(at, std::min(kPieceBytes, tensor.bytes.size() - at))});
    }
    ++index;
  }
  std::vector<std::atomic<bool>> bad(tensors_.size());
  pool.parallel_for(static_cast<int64_t>(pieces.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const Piece& piece = pieces[static_cast<size_t>(i)];
      fetch(piece.bytes);
      if (has_nonfinite(piece.tensor->dtype, piece.bytes)) bad[piece.index].store(true, std::memory_order_relaxed);
      release(piece.bytes);
    }
  });
  std::vector<std::string> names;
  index = 0;
  for (const auto& [name, tensor] : tensors_) {
    if (bad[index++]) names.push_back(name);
  }
  return names;
}

DType Checkpoint::compute_dtype() const {
  const auto bytes = totals().bytes;
  const auto most =
      std::max_element(bytes.begin(), bytes.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  return most != bytes.end() && most->first == StoredDType::kBf16 ? DType::kBf16 : DType::kF32;
}

Checkpoint::Totals Checkpoint::totals() const {
  Totals totals;
  for (const auto& [name, tensor] : tensors_) {
    ++totals.tensors;
    totals.parameters += tensor.num_elements();
    totals.bytes[tensor.dtype] += static_cast<int64_t>(tensor.bytes.size());
  }
  return totals;
}

}  // namespace idefics
