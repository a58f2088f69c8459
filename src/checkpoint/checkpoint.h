// The weights of a model folder: one or more safetensors files behind one table of names.
//
//   Checkpoint checkpoint = Checkpoint::open("models/x");
//   for (const std::string& name : checkpoint.verify(config)) warn("unused tensor " + name);
//   config.finalize(huggingface_config, checkpoint.state_dict(), ReturnLogits::kLastToken);
//   const TensorInfo& norm = checkpoint.get("model.text_model.norm.weight", {config.text_config.hidden_size});
//
// Names are canonical, those that transformers writes ("model.vision_model. ...", "model.text_model. ...",
// "model.connector. ...", "lm_head.weight"), whatever variant the files use:
//   without the leading "model." (a bare Idefics3Model);
//   "language_model.*" for the text tower and "language_model.lm_head.weight" (MLX), where the patch embedding may lie
//   in the order [D, p, p, 3] (TensorInfo::channels_last); "base_model.model.*" (PEFT).
// "*.rotary_emb.inv_freq" and "*vision_model.head.*" are skipped.
//
// The files stay mapped, and TensorInfo borrows from them, as long as the Checkpoint lives. Moves, does not copy.
// Threads: const functions may be called by many at once. Errors: kBadModel, naming file, tensor, wanted and found.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <initializer_list>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/thread_pool.h"
#include "checkpoint/safetensors.h"
#include "idefics/config.h"

namespace idefics {

class Checkpoint {
 public:
  // Opens folder/model.safetensors or, when there is none, the files that folder/model.safetensors.index.json lists.
  // An index is not trusted: it may name only regular files of the folder itself, or links that stay within the folder
  // or, in a Hugging Face cache (models--org--name/snapshots/<revision>), within the same repository. The index and the
  // files must agree.
  // `rename`, when given, is asked first what a tensor is called (empty: skip it).
  using Rename = std::function<std::string(std::string_view stored_name)>;
  static Checkpoint open(const std::filesystem::path& folder, const Rename& rename = nullptr);

  // All tensors by canonical name.
  const std::map<std::string, TensorInfo, std::less<>>& tensors() const { return tensors_; }
  // Null when there is no such tensor.
  const TensorInfo* find(std::string_view name) const;
  // The tensor, which must have this shape and a weight dtype.
  const TensorInfo& get(std::string_view name, std::span<const int64_t> shape) const;
  const TensorInfo& get(std::string_view name, std::initializer_list<int64_t> shape) const {
    return get(name, std::span(shape.begin(), shape.size()));
  }

  // Fails unless every tensor that the network needs is there with the right shape and a weight dtype. lm_head.weight
  // may be missing. Returns the names of the tensors that nothing needs.
  std::vector<std::string> verify(const Idefics3Config& config) const;

  // Whether the head is the embedding: always when there is no lm_head.weight, and, when config.json says
  // `tie_word_embeddings`, if the two have the same bytes.
  bool tied_head(bool tie_word_embeddings) const;
  // What Idefics3Config::finalize needs.
  StateDict state_dict() const;

  // Hints about bytes of a tensor: they are about to be read; they are not wanted any more (MappedFile).
  void fetch(std::span<const std::byte> part) const;
  void release(std::span<const std::byte> part) const;

  // The names of the tensors of a weight dtype that hold a NaN or an infinity. Reads every byte, at memory speed.
  std::vector<std::string> find_nonfinite(ThreadPool& pool) const;

  struct Totals {
    int64_t tensors = 0;
    int64_t parameters = 0;                // elements of all tensors
    std::map<StoredDType, int64_t> bytes;  // by stored dtype
  };
  Totals totals() const;
  // What a network of these weights computes in when nobody says: bfloat16 when most bytes of them are of that type,
  // else float32, so that no weight loses bits.
  DType compute_dtype() const;

 private:
  Checkpoint() = default;
  void add(const Safetensors& file, const Rename& rename);
  bool head_equals_embedding() const;
  bool same_bytes(std::span<const std::byte> a, std::span<const std::byte> b) const;
  const MappedFile* find_file_of(std::span<const std::byte> part) const;

  std::vector<Safetensors> files_;
  std::map<std::string, TensorInfo, std::less<>> tensors_;
  std::string where_;
};

// The canonical name of a tensor as a file calls it; empty when the tensor is to be skipped. Names of no known variant
// stay as they are.
std::string canonical_name(std::string_view name);

}  // namespace idefics
