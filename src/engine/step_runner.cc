#include "engine/step_runner.h"

#include <algorithm>
#include <numeric>

#include "engine/prompt_lookup.h"

namespace idefics {

namespace {

KvType kv_type(KvCacheType wanted, Element of_network) {
  switch (wanted) {
    case KvCacheType::kAuto: break;
    case KvCacheType::kF32: return KvType::kF32;
    case KvCacheType::kBf16: return KvType::kBf16;
    case KvCacheType::kQ8: return KvType::kQ8;
  }
  return kv_type_of(of_network);
}

int64_t pages_for(int64_t tokens, const EngineOptions& options) {
  return (tokens + options.page_size - 1) / options.page_size;
}

}  // namespace

int StepRunner::max_logit_rows(const EngineOptions& options) { return options.max_num_seqs + PromptLookup::kMost; }

int64_t StepRunner::num_pages(const EngineOptions& options, const Network& network) {
  constexpr int64_t kTokensPerSequence = 2048;
  const Idefics3Config& config = network.config();
  if (options.kv_cache_bytes) {
    const int64_t page = KvCache::page_bytes(kv_shape(options, network));
    return std::max<int64_t>(1, static_cast<int64_t>(*options.kv_cache_bytes) / page);
  }
  const int64_t context = config.get_max_seq_len();
  return std::max(pages_for(context, options),
                  options.max_num_seqs * pages_for(std::min(context, kTokensPerSequence), options));
}

KvCache::Shape StepRunner::kv_shape(const EngineOptions& options, const Network& network) {
  KvCache::Shape shape = Network::kv_shape(network.config(), kv_type(options.kv_cache_dtype, network.dtype()));
  shape.page_size = options.page_size;
  return shape;
}

size_t StepRunner::scratch_bytes(const Idefics3Config& config, Format format, const EngineOptions& options) {
  return Network::scratch_bytes(config, format, options.max_num_batched_tokens,
                                pages_for(config.get_max_seq_len(), options), max_logit_rows(options));
}

StepRunner::StepRunner(const EngineOptions& options, const Network& network, const kernels::Table& kernels,
                       ThreadPool& pool, const std::array<float, 768>& pixel_table)
    : network_(network),
      kernels_(kernels),
      pool_(pool),
      pixel_table_(pixel_table),
      arena_(scratch_bytes(network.config(), network.format(), options), "scratch"),
      cache_(kv_shape(options, network), num_pages(options, network)),
      vision_(static_cast<size_t>(network.config().image_seq_len()) *
                  static_cast<size_t>(network.config().text_config.hidden_size),
              options.vision_cache_bytes),
      x_(static_cast<size_t>(options.max_num_batched_tokens) *
         static_cast<size_t>(network.config().text_config.hidden_size)),
      logits_(static_cast<size_t>(max_logit_rows(options)) *
              static_cast<size_t>(network.config().text_config.vocab_size)),
      ids_(static_cast<size_t>(options.max_num_batched_tokens)),
      numbers_(ids_.size()) {
  std::iota(numbers_.begin(), numbers_.end(), 0);
  images_.reserve(ids_.size());  // a tile has a row of the step at least
  sequences_.reserve(static_cast<size_t>(options.max_num_seqs));
}

void StepRunner::copy_pages(std::span<const StepPlan::PageCopy> copies) {
  for (const StepPlan::PageCopy& copy : copies) cache_.copy_page(copy.from, copy.to);
}

void StepRunner::run_rows(const StepPlan& plan, std::span<const RowTokens> tokens) {
  const int64_t E = network_.config().text_config.hidden_size;
  num_rows_ = plan.num_rows;
  const Matrix<float> x(x_.data(), num_rows_, E);
  sequences_.clear();
  images_.clear();
  for (size_t i = 0; i < plan.rows.size(); ++i) {
    const StepPlan::Rows& rows = plan.rows[i];
    const auto known = static_cast<size_t>(rows.num_rows - rows.num_drafts),
               drafts = static_cast<size_t>(rows.num_drafts);
    const auto at = ids_.begin() + rows.first_row;
    std::ranges::copy(tokens[i].known.subspan(static_cast<size_t>(rows.context), known), at);
    std::ranges::copy(tokens[i].drafts.first(drafts), at + static_cast<std::ptrdiff_t>(known));
    sequences_.push_back({rows.first_row, rows.num_rows, rows.context, plan.pages(rows)});
    add_images(rows, tokens[i].tiles);
  }
  // Logits come later, a few rows at a time.
  const LanguageStep step{std::span(ids_).first(static_cast<size_t>(num_rows_)), sequences_, images_, {}};
  run_language_step(network_, exec(), step, cache_, x, {});
}

// The features of tiles for the rows of their image tokens. Tiles belong to the prompt alone: an image token that the
// model generates keeps its ordinary embedding.
void StepRunner::add_images(const StepPlan::Rows& rows, std::span<const SequenceTile> tiles) {
  const int64_t S = network_.config().image_seq_len(), E = network_.config().text_config.hidden_size;
  const auto after = std::ranges::upper_bound(tiles, rows.context - S, {}, &SequenceTile::first);
  for (auto tile = after; tile != tiles.end() && tile->first < rows.context + rows.num_rows; ++tile) {
    const int64_t begin = std::max<int64_t>(tile->first, rows.context),
                  end = std::min<int64_t>(tile->first + S, rows.context + rows.num_rows);
    const float* from = vision_.features(tile->key).data() + (begin - tile->first) * E;
    images_.push_back({Matrix<const float>(from, end - begin, E),
                       std::span(numbers_).subspan(static_cast<size_t>(rows.first_row + begin - rows.context),
                                                   static_cast<size_t>(end - begin))});
  }
}

Matrix<float> StepRunner::logits(std::span<const int32_t> rows) {
  const int64_t V = network_.config().text_config.vocab_size;
  IDEFICS_CHECK(std::ssize(rows) * V <= std::ssize(logits_));
  const Matrix<float> logits(logits_.data(), std::ssize(rows), V);
  const Matrix<float> x(x_.data(), num_rows_, network_.config().text_config.hidden_size);
  network_.logits(exec(), x, rows, logits);
  return logits;
}

void StepRunner::encode(const TileKey& key, std::span<const uint8_t> rgb,
                        const std::function<void(std::span<float> features)>& check) {
  const Idefics3Config& config = network_.config();
  const std::span<float> features = vision_.add_pinned(key);
  try {
    network_.encode(exec(), {rgb, pixel_table_},
                    Matrix<float>(features.data(), config.image_seq_len(), config.text_config.hidden_size));
    check(features);
  } catch (...) {
    vision_.drop(key);
    throw;
  }
}

}  // namespace idefics
