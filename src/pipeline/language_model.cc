#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "idefics/error.h"
#include "model/language_step.h"
#include "pipeline/model_state.h"

namespace idefics {

namespace {

constexpr int32_t kMaxRows = std::numeric_limits<int32_t>::max();

[[noreturn]] void fail(const std::string& problem) { throw Error(ErrorCode::kInvalidValue, problem); }

enum Input {
  kTokens,
  kOffsets,
  kReturnN,
  kEmbeddings,
  kIndices,
  kKvBlocks,
  kCacheLengths,
  kLookupTable,
  kMaxPromptLength,
  kMaxCacheLength,
  kPageStride,
  kNumInputs
};

// The inputs, checked, in the form that the step takes.
class CheckedInputs {
 public:
  CheckedInputs(const ModelState& state, std::span<const Tensor> inputs)
      : config_(state.config()),
        inputs_(inputs),
        shape_(Network::kv_shape(config_, kv_type_of(config_.get_kv_params().dtype))) {
    if (inputs.size() != kNumInputs) {
      fail(
          fmt::format("language model: {} inputs, wanted {}: tokens, input_row_offsets, return_n_logits, "
                      "image_embeddings, image_token_indices and the 6 of KVCacheInputs::flatten",
                      inputs.size(), static_cast<int>(kNumInputs)));
    }
    take_tokens();
    take_cache();
    take_sequences();
    check_written_pages();
    take_images();
    take_logit_rows();
  }

  LanguageStep step() const { return {tokens_, sequences_, std::span(&image_, 1), logit_rows_}; }
  KvCache cache() const { return KvCache(shape_, num_pages_, static_cast<std::byte*>(inputs_[kKvBlocks].data())); }
  std::span<const SequenceRows> sequences() const { return sequences_; }
  std::span<const int64_t> logit_offsets() const { return logit_offsets_; }
  const Tensor& row_offsets() const { return inputs_[kOffsets]; }
  int64_t num_rows() const { return std::ssize(tokens_); }
  int64_t num_logit_rows() const { return std::ssize(logit_rows_); }
  int64_t most_pages() const {
    size_t most = 0;
    for (const SequenceRows& s : sequences_) most = std::max(most, s.pages.size());
    return static_cast<int64_t>(most);
  }

 private:
  void take_tokens() {
    check_tensor("tokens", inputs_[kTokens], TensorDType::kI64, {-1});
    const auto tokens = inputs_[kTokens].as<int64_t>();
    if (tokens.empty() || tokens.size() > kMaxRows) fail(fmt::format("tokens: there are {}", tokens.size()));
    tokens_.reserve(tokens.size());
    for (size_t t = 0; t < tokens.size(); ++t) {
      if (tokens[t] < 0 || tokens[t] >= config_.text_config.vocab_size) {
        fail(fmt::format("tokens[{}] is {}, wanted 0 to {}", t, tokens[t], config_.text_config.vocab_size - 1));
      }
      tokens_.push_back(static_cast<int32_t>(tokens[t]));
    }
  }

  void take_cache() {
    check_tensor("kv_blocks", inputs_[kKvBlocks], kv_tensor_dtype(shape_.dtype), kv_tensor_shape(shape_, -1));
    num_pages_ = inputs_[kKvBlocks].shape()[0];
    if (num_pages_ < 1 || num_pages_ > kMaxRows) fail(fmt::format("kv_blocks: there are {} pages", num_pages_));
  }

  void take_sequences() {
    check_tensor("input_row_offsets", row_offsets(), TensorDType::kU32, {-1});
    const auto offsets = row_offsets().as<uint32_t>();
    if (offsets.size() < 2 || offsets.front() != 0 || offsets.back() != tokens_.size()) {
      fail(fmt::format("input_row_offsets: wanted 0 first and the number of tokens, {}, last", tokens_.size()));
    }
    const auto B = static_cast<int64_t>(offsets.size()) - 1;
    check_tensor("cache_lengths", inputs_[kCacheLengths], TensorDType::kU32, {B});
    check_tensor("lookup_table", inputs_[kLookupTable], TensorDType::kU32, {B, -1});
    const auto lengths = inputs_[kCacheLengths].as<uint32_t>();
    const auto table = inputs_[kLookupTable].as<uint32_t>();
    const auto width = static_cast<uint64_t>(inputs_[kLookupTable].shape()[1]);
    pages_.reserve(table.size());
    for (size_t i = 0; i < static_cast<size_t>(B); ++i) {
      if (offsets[i + 1] <= offsets[i] || offsets[i + 1] > tokens_.size()) {
        fail(fmt::format("input_row_offsets: sequence {} has rows {} to {}, wanted at least one active token", i,
                         offsets[i], offsets[i + 1]));
      }
      const uint64_t active = offsets[i + 1] - offsets[i], total = lengths[i] + active;
      if (total > static_cast<uint64_t>(config_.get_max_seq_len())) {
        throw Error(ErrorCode::kContextLengthExceeded,
                    fmt::format("sequence {}: {} tokens in the cache and {} active ones exceed the context of {}", i,
                                lengths[i], active, config_.get_max_seq_len()));
      }
      const auto page_size = static_cast<uint64_t>(shape_.page_size), needed = (total + page_size - 1) / page_size;
      if (needed > width) {
        fail(fmt::format("lookup_table: sequence {} has {} pages, wanted {} for {} tokens", i, width, needed, total));
      }
      const size_t first = pages_.size();
      for (uint64_t p = 0; p < needed; ++p) {
        const uint32_t page = table[i * width + p];
        if (page >= num_pages_) {
          fail(fmt::format("lookup_table[{}, {}] is page {}, wanted 0 to {}", i, p, page, num_pages_ - 1));
        }
        pages_.push_back(static_cast<PageId>(page));
      }
      sequences_.push_back({.first_row = static_cast<int32_t>(offsets[i]),
                            .num_rows = static_cast<int32_t>(active),
                            .context = static_cast<int32_t>(lengths[i]),
                            .pages = std::span(pages_).subspan(first, needed)});
    }
  }

  // Pages may be shared for reading; one that is written to must be in the table once.
  void check_written_pages() const {
    std::vector<PageId> all = pages_;
    std::sort(all.begin(), all.end());
    for (size_t i = 0; i < sequences_.size(); ++i) {
      const SequenceRows& s = sequences_[i];
      for (const PageId page : s.pages.subspan(static_cast<size_t>(s.context / shape_.page_size))) {
        const auto range = std::equal_range(all.begin(), all.end(), page);
        if (range.second - range.first > 1) {
          fail(fmt::format("lookup_table: sequence {} writes to page {}, which is in the table more than once", i,
                           page));
        }
      }
    }
  }

  void take_images() {
    const Tensor &embeddings = inputs_[kEmbeddings], &indices = inputs_[kIndices];
    const int64_t E = config_.text_config.hidden_size;
    check_tensor("image_embeddings", embeddings, TensorDType::kF32, {-1, E});
    check_tensor("image_token_indices", indices, TensorDType::kI32, {-1});
    if (embeddings.shape()[0] != indices.shape()[0]) {
      fail(fmt::format("Vision embedding shape mismatch: {} embeddings but {} indices.", embeddings.shape()[0],
                       indices.shape()[0]));
    }
    image_ = {Matrix<const float>(embeddings.as<float>().data(), embeddings.shape()[0], E), indices.as<int32_t>()};
  }

  void take_logit_rows() {
    const ReturnLogits mode = config_.text_config.return_logits;
    check_tensor("return_n_logits", inputs_[kReturnN], TensorDType::kI64, {1});
    const int64_t n = inputs_[kReturnN].as<int64_t>()[0];
    if (n < 1) fail(fmt::format("return_n_logits is {}, wanted 1 or more", n));
    for (const SequenceRows& s : sequences_) {
      const int32_t count = idefics::num_logit_rows(mode, s.num_rows, n), end = s.first_row + s.num_rows;
      for (int32_t row = end - count; row < end; ++row) logit_rows_.push_back(row);
      logit_offsets_.push_back(std::ssize(logit_rows_));
    }
  }

  const Idefics3Config& config_;
  std::span<const Tensor> inputs_;
  KvCache::Shape shape_;
  int64_t num_pages_ = 0;
  std::vector<int32_t> tokens_;
  std::vector<PageId> pages_;
  std::vector<SequenceRows> sequences_;
  ImageRows image_;
  std::vector<int32_t> logit_rows_;
  std::vector<int64_t> logit_offsets_ = {0};
};

void copy_row(Matrix<const float> from, int64_t row, Tensor& to, int64_t at) {
  std::copy_n(from.row(row), from.cols(), to.as_mutable<float>().data() + at * from.cols());
}

// Collects what ReturnHiddenStates asks for while a step runs.
class HiddenStates {
 public:
  HiddenStates(const ModelState& state, const CheckedInputs& inputs)
      : state_(state), inputs_(inputs), mode_(state.config().text_config.return_hidden_states) {
    const int64_t T = inputs.num_rows(), E = state.config().text_config.hidden_size;
    switch (mode_) {
      case ReturnHiddenStates::kNone: break;
      case ReturnHiddenStates::kLast:
        out_ = Tensor::zeros(TensorDType::kF32, {std::ssize(inputs.sequences()), E});
        break;
      case ReturnHiddenStates::kAll:
      case ReturnHiddenStates::kAllNormalized: out_ = Tensor::zeros(TensorDType::kF32, {T, E}); break;
      case ReturnHiddenStates::kSelectedLayers:
        out_ = Tensor::zeros(TensorDType::kF32, {std::ssize(state.options.hidden_state_layers), T, E});
    }
  }

  // Stages come in the order of the network: the merged embeddings, then each layer.
  Probe probe() {
    if (mode_ != ReturnHiddenStates::kSelectedLayers) return nullptr;
    return [this](std::string_view stage, Matrix<const float> x) {
      if (stage != "merged" && !stage.starts_with("text.layer.")) return;
      const std::vector<int>& wanted = state_.options.hidden_state_layers;
      for (size_t i = 0; i < wanted.size(); ++i) {
        if (wanted[i] != layer_) continue;
        for (int64_t t = 0; t < x.rows(); ++t) copy_row(x, t, out_, static_cast<int64_t>(i) * x.rows() + t);
      }
      ++layer_;
    };
  }

  // After the step, with its last hidden states.
  void finish(const Exec& exec, Matrix<const float> x) {
    if (mode_ == ReturnHiddenStates::kLast) {
      int64_t i = 0;
      for (const SequenceRows& s : inputs_.sequences()) copy_row(x, s.first_row + s.num_rows - 1, out_, i++);
    } else if (mode_ == ReturnHiddenStates::kAll) {
      for (int64_t t = 0; t < x.rows(); ++t) copy_row(x, t, out_, t);
    } else if (mode_ == ReturnHiddenStates::kAllNormalized) {
      state_.network->normalize(exec, x, Matrix<float>(out_.as_mutable<float>().data(), x.rows(), x.cols()));
    }
  }

  bool wanted() const { return mode_ != ReturnHiddenStates::kNone; }
  Tensor take() { return std::move(out_); }

 private:
  const ModelState& state_;
  const CheckedInputs& inputs_;
  ReturnHiddenStates mode_;
  Tensor out_;
  int layer_ = 0;
};

Tensor last_of_each(const Tensor& logits, std::span<const int64_t> offsets) {
  const int64_t V = logits.shape()[1];
  Tensor last = Tensor::zeros(TensorDType::kF32, {std::ssize(offsets) - 1, V});
  const Matrix<const float> rows(logits.as<float>().data(), logits.shape()[0], V);
  for (int64_t i = 0; i < last.shape()[0]; ++i) copy_row(rows, offsets[static_cast<size_t>(i) + 1] - 1, last, i);
  return last;
}

}  // namespace

std::vector<Tensor> run_language_model(ModelState& state, std::span<const Tensor> tensors) {
  const CheckedInputs inputs(state, tensors);
  const int64_t T = inputs.num_rows(), R = inputs.num_logit_rows(), E = state.config().text_config.hidden_size,
                V = state.config().text_config.vocab_size;
  Tensor hidden = Tensor::zeros(TensorDType::kF32, {T, E}), logits = Tensor::zeros(TensorDType::kF32, {R, V});
  HiddenStates wanted(state, inputs);
  const Matrix<float> x(hidden.as_mutable<float>().data(), T, E);
  const Exec exec = state.exec(T, inputs.most_pages(), R);
  KvCache cache = inputs.cache();
  run_language_step(*state.network, exec, inputs.step(), cache, x,
                    Matrix<float>(logits.as_mutable<float>().data(), R, V), wanted.probe());
  wanted.finish(exec, x);

  std::vector<Tensor> outputs;
  const ReturnLogits mode = state.config().text_config.return_logits;
  if (mode != ReturnLogits::kLastToken) outputs.push_back(last_of_each(logits, inputs.logit_offsets()));
  outputs.push_back(std::move(logits));
  const std::vector<int64_t> shape = {std::ssize(inputs.logit_offsets())};
  if (mode == ReturnLogits::kVariable) outputs.push_back(Tensor::of<int64_t>(shape, inputs.logit_offsets()));
  if (mode == ReturnLogits::kAll) outputs.push_back(Tensor::of<uint32_t>(shape, inputs.row_offsets().as<uint32_t>()));
  if (wanted.wanted()) outputs.push_back(wanted.take());
  return outputs;
}

}  // namespace idefics
