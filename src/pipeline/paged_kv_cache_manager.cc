#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "idefics/error.h"
#include "idefics/inputs.h"
#include "model/kv_cache.h"
#include "pipeline/model_state.h"

namespace idefics {

namespace {

KvCache::Shape shape_of(const KVCacheParams& p) {
  const auto check = [](const char* name, int value, int max) {
    if (value >= 1 && value <= max) return;
    throw Error(ErrorCode::kInvalidValue, fmt::format("KVCacheParams: {} is {}, wanted 1 to {}", name, value, max));
  };
  check("num_layers", p.num_layers, 1 << 16);
  check("n_kv_heads", p.n_kv_heads, 1 << 16);
  check("head_dim", p.head_dim, kernels::kMaxHead);
  check("page_size", p.page_size, 1 << 24);
  if (p.page_size % kernels::kBlock != 0) {
    throw Error(ErrorCode::kInvalidValue,
                fmt::format("KVCacheParams: page_size is {}, wanted a multiple of {}", p.page_size, kernels::kBlock));
  }
  if (p.dtype == DType::kF16) {
    throw Error(ErrorCode::kInvalidValue, "KVCacheParams: dtype is float16, wanted float32, bfloat16 or q8");
  }
  return {.dtype = kv_type_of(p.dtype),
          .num_layers = p.num_layers,
          .kv_heads = p.n_kv_heads,
          .head_dim = p.head_dim,
          .page_size = p.page_size};
}

int64_t check_pages(const KvCache::Shape& shape, int64_t num_pages) {
  const int64_t most = std::min<int64_t>(int64_t{1} << 30, (int64_t{1} << 46) / KvCache::page_bytes(shape));
  if (num_pages >= 1 && num_pages <= most) return num_pages;
  throw Error(ErrorCode::kInvalidValue, fmt::format("total_num_pages is {}, wanted 1 to {}", num_pages, most));
}

[[noreturn]] void fail(const TextAndVisionContext& context, const char* problem) {
  throw Error(ErrorCode::kInvalidValue, fmt::format("request \"{}\": {}", context.request_id, problem));
}

}  // namespace

struct PagedKVCacheManager::Parts {
  Parts(const KvCache::Shape& shape, int64_t num_pages)
      : cache(std::make_shared<KvCache>(shape, check_pages(shape, num_pages))) {
    for (int64_t page = num_pages; page-- > 0;) free.push_back(static_cast<PageId>(page));
  }

  std::vector<PageId>& pages_of(const TextAndVisionContext& context) {
    const auto found = pages.find(context.request_id);
    if (found == pages.end()) fail(context, "the cache does not know it; claim it first");
    return found->second;
  }
  size_t pages_needed(const TextAndVisionContext& context, int64_t num_steps) const {
    const int64_t total = int64_t{context.tokens.processed_length()} + context.tokens.active_length() + num_steps - 1;
    return static_cast<size_t>((total + cache->shape().page_size - 1) / cache->shape().page_size);
  }

  std::shared_ptr<KvCache> cache;  // Tensors that borrow from it keep it alive
  std::vector<PageId> free;
  std::map<std::string, std::vector<PageId>, std::less<>> pages;
};

PagedKVCacheManager::PagedKVCacheManager(const KVCacheParams& params, int64_t total_num_pages)
    : parts_(std::make_unique<Parts>(shape_of(params), total_num_pages)) {}
PagedKVCacheManager::PagedKVCacheManager(PagedKVCacheManager&&) noexcept = default;
PagedKVCacheManager& PagedKVCacheManager::operator=(PagedKVCacheManager&&) noexcept = default;
PagedKVCacheManager::~PagedKVCacheManager() = default;

void PagedKVCacheManager::claim(const TextAndVisionContext& context) {
  if (!parts_->pages.emplace(context.request_id, std::vector<PageId>()).second)
    fail(context, "the cache has a sequence of this name already");
}

bool PagedKVCacheManager::contains(const TextAndVisionContext& context) const {
  return parts_->pages.contains(context.request_id);
}

void PagedKVCacheManager::alloc(const TextAndVisionContext& context, int num_steps) {
  if (num_steps < 1) fail(context, "alloc: num_steps must be 1 or more");
  std::vector<PageId>& pages = parts_->pages_of(context);
  const size_t needed = parts_->pages_needed(context, num_steps);
  if (needed <= pages.size()) return;
  const size_t missing = needed - pages.size();
  if (missing > parts_->free.size()) {
    throw Error(
        ErrorCode::kOutOfMemory,
        fmt::format("request \"{}\": {} more pages of {} tokens are needed, {} of {} are free; release a sequence",
                    context.request_id, missing, parts_->cache->shape().page_size, parts_->free.size(),
                    parts_->cache->num_pages()));
  }
  for (size_t i = 0; i < missing; ++i) {
    pages.push_back(parts_->free.back());
    parts_->free.pop_back();
  }
}

KVCacheInputs PagedKVCacheManager::runtime_inputs(const Batch& batch) const {
  const auto B = std::ssize(batch);
  size_t width = 1;
  uint32_t most_active = 0, most_total = 0;
  for (const TextAndVisionContext* context : batch) {
    const size_t pages = parts_->pages_of(*context).size();
    if (pages < parts_->pages_needed(*context, 1)) fail(*context, "it has too few pages; alloc comes before each step");
    const auto active = static_cast<uint32_t>(context->tokens.active_length());
    width = std::max(width, pages);
    most_active = std::max(most_active, active);
    most_total = std::max(most_total, active + static_cast<uint32_t>(context->tokens.processed_length()));
  }
  Tensor lengths = Tensor::zeros(TensorDType::kU32, {B}),
         table = Tensor::zeros(TensorDType::kU32, {B, static_cast<int64_t>(width)});
  for (size_t i = 0; i < batch.size(); ++i) {
    lengths.as_mutable<uint32_t>()[i] = static_cast<uint32_t>(batch[i]->tokens.processed_length());
    const std::vector<PageId>& pages = parts_->pages_of(*batch[i]);
    std::copy(pages.begin(), pages.end(), table.as_mutable<uint32_t>().subspan(i * width).begin());
  }
  const KvCache::Shape& s = parts_->cache->shape();
  const TensorDType dtype = kv_tensor_dtype(s.dtype);
  return {.kv_blocks = Tensor::borrow(dtype, kv_tensor_shape(s, parts_->cache->num_pages()), parts_->cache->data(),
                                      parts_->cache),
          .cache_lengths = std::move(lengths),
          .lookup_table = std::move(table),
          .max_prompt_length = Tensor::of<uint32_t>({1}, {most_active}),
          .max_cache_length = Tensor::of<uint32_t>({1}, {most_total}),
          .page_stride = Tensor::of<int64_t>({1}, {KvCache::page_bytes(s) / tensor_dtype_bytes(dtype)}),
          .attention_dispatch_metadata = std::nullopt};
}

void PagedKVCacheManager::release(const TextAndVisionContext& context) {
  const std::vector<PageId> pages = parts_->pages_of(context);
  parts_->free.insert(parts_->free.end(), pages.rbegin(), pages.rend());
  parts_->pages.erase(context.request_id);
}

int64_t PagedKVCacheManager::total_num_pages() const { return parts_->cache->num_pages(); }
int64_t PagedKVCacheManager::num_free_pages() const { return std::ssize(parts_->free); }
size_t PagedKVCacheManager::bytes_per_page() const {
  return static_cast<size_t>(KvCache::page_bytes(parts_->cache->shape()));
}

}  // namespace idefics
