#include "engine/preparation.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <new>
#include <random>

#include "engine/failures.h"
#include "engine/sampler.h"

namespace idefics {

namespace {

constexpr int kMostChoices = 128, kMostLogprobs = 20;

void check_range(const char* name, int value, int min, int max) {
  if (value >= min && value <= max) return;
  throw Error(ErrorCode::kInvalidValue, fmt::format("{} is {}, wanted {} to {}", name, value, min, max));
}

void check_request(const Request& request, int vocab_size) {
  check_sampling(request.sampling, vocab_size);
  check_range("n", request.n, 1, kMostChoices);
  check_range("logprobs", request.logprobs.value_or(0), 0, kMostLogprobs);
  check_range("prompt_logprobs", request.prompt_logprobs.value_or(0), 0, kMostLogprobs);
  const int kinds = int{!request.messages.empty()} + int{request.text.has_value()} + int{request.token_ids.has_value()};
  if (kinds > 1)
    throw Error(ErrorCode::kInvalidValue, "request: messages, text and token ids exclude each other; give one of them");
}

std::vector<int32_t> collect_stop_ids(const SamplingParams& sampling, const Processor& processor) {
  std::vector<int32_t> ids = sampling.stop_token_ids;
  if (!sampling.ignore_eos) ids.insert(ids.end(), processor.stop_ids().begin(), processor.stop_ids().end());
  std::sort(ids.begin(), ids.end());
  return ids;
}

bool has_pictures(const Request& request) {
  return std::ranges::any_of(request.messages, [](const Message& message) {
    return std::ranges::any_of(message.content,
                               [](const ContentPart& part) { return part.type == ContentPart::Type::kImage; });
  });
}

}  // namespace

Preparation::Preparation(const Processor& processor, const EngineOptions& options, OpenRequests& open,
                         PixelBudget& pixels, Deliver deliver)
    : processor_(processor),
      options_(options),
      open_(open),
      pixels_(pixels),
      deliver_(std::move(deliver)),
      grammars_(processor.parts().tokenizer),
      cutting_(options.num_threads) {
  try {
    for (int i = 0; i < kThreads; ++i) threads_.emplace_back([this] { run(); });
  } catch (...) {
    stop();
    throw;
  }
}

Preparation::~Preparation() { stop(); }

void Preparation::stop() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
  for (const Work& work : queue_) {
    if (work.job) open_.end(*work.job, cancelled_error());
  }
  queue_.clear();
}

void Preparation::post(std::shared_ptr<Job> job) {
  const bool pictures = has_pictures(job->request);
  {
    const std::lock_guard lock(mutex_);
    if (!stop_) queue_.push_back({std::exchange(job, nullptr), nullptr, pictures});
  }
  wake_.notify_one();
  if (job) open_.end(*job, cancelled_error());
}

void Preparation::post(std::shared_ptr<PixelOrder> order) {
  {
    const std::lock_guard lock(mutex_);
    if (stop_) return;
    queue_.push_front({nullptr, std::move(order), true});
  }
  wake_.notify_one();
}

// The oldest work that may be begun; false at the end.
bool Preparation::take(Work& work) {
  const auto may_begin = [&](const Work& candidate) {
    return !candidate.has_pictures || with_pictures_ < kPictureThreads;
  };
  std::unique_lock lock(mutex_);
  auto next = queue_.end();
  wake_.wait(lock, [&] {
    next = std::ranges::find_if(queue_, may_begin);
    return stop_ || next != queue_.end();
  });
  if (stop_) return false;
  work = std::move(*next);
  queue_.erase(next);
  with_pictures_ += work.has_pictures;
  return true;
}

void Preparation::finish(const Work& work) {
  if (!work.has_pictures) return;
  {
    const std::lock_guard lock(mutex_);
    --with_pictures_;
  }
  wake_.notify_one();  // there may be work that had to wait for this
}

void Preparation::run() {
  Work work;
  while (take(work)) {
    if (work.job) {
      prepare(work.job);
    } else {
      cut_again(*work.order);
    }
    finish(work);
    work = {};
  }
}

void Preparation::cut_again(PixelOrder& order) {
  try {
    if (order.job->cancelled) throw cancelled_error();
    order.tiles = processor_.parts().cut(order.file, &cutting_).tiles;
  } catch (...) {
    order.error = current_error();
  }
  order.done = true;
  deliver_.cut_again();
}

void Preparation::prepare(const std::shared_ptr<Job>& job) {
  try {
    if (job->cancelled) throw cancelled_error();
    prepare(*job);
    deliver_.prepared(job);
  } catch (...) {
    open_.end(*job, current_error());
  }
}

void Preparation::prepare(Job& job) {
  const Request& request = job.request;
  check_request(request, processor_.vocab_size());
  job.seed = request.sampling.seed ? *request.sampling.seed : std::random_device{}();
  job.stop_ids = collect_stop_ids(request.sampling, processor_);
  if (request.structured_output) job.grammar = grammars_.find(*request.structured_output);

  std::vector<std::vector<TileKey>> keys;  // by picture
  job.prompt = make_prompt(job, keys);
  for (const TileSpan& span : job.prompt.tiles) {
    job.tiles.push_back({span.first, keys[static_cast<size_t>(span.image)][static_cast<size_t>(span.tile)]});
  }
  // The logits of a prompt's tokens are there only when they are computed.
  if (options_.enable_prefix_caching && !request.prompt_logprobs) {
    job.keys = BlockKeyChain(request.cache_salt, options_.page_size);
    job.keys.extend(job.prompt.ids, job.tiles, processor_.config().image_seq_len);
  }
  if (request.prompt_logprobs) job.prompt_logprobs.resize(job.prompt.ids.size());
  job.usage = {.prompt_tokens = static_cast<int>(job.prompt.ids.size()),
               .image_tokens = job.prompt.num_image_tokens,
               .tiles = static_cast<int>(job.tiles.size())};
  job.prepared_ms = job.timings.preprocess_ms = job.since_submit.ms();
}

Prompt Preparation::make_prompt(Job& job, std::vector<std::vector<TileKey>>& keys) {
  const Request& request = job.request;
  const Processor::Parts& parts = processor_.parts();
  if (request.text) return parts.plain_prompt(*request.text);
  if (request.token_ids) return parts.token_prompt(*request.token_ids);
  const std::vector<PictureFile> files = pictures_of(request.messages, request.prompt.images);
  std::vector<Key> names;
  for (const PictureFile& file : files) names.push_back(KnownPictures::name(request.cache_salt, file));
  job.pictures.set(files, pixels_);

  Processor::Parts::ImageHooks hooks;
  hooks.find = [&](int picture) -> std::optional<PromptImage> {
    if (job.cancelled) throw cancelled_error();
    std::optional<KnownPictures::Picture> known = known_.find(names[static_cast<size_t>(picture)]);
    if (!known) return std::nullopt;
    keys.push_back(std::move(known->keys));
    return std::move(known->image);
  };
  hooks.take = [&](int picture, PromptImage& image) {
    keys.push_back(tile_keys(request.cache_salt, image));
    job.pictures.offer(picture, image);
    known_.add(names[static_cast<size_t>(picture)], {image, keys.back()});
  };
  return parts.prompt(request.messages, request.prompt, &cutting_, hooks);
}

std::vector<TileKey> Preparation::tile_keys(std::string_view salt, const PromptImage& image) {
  std::vector<TileKey> keys(static_cast<size_t>(image.count));
  std::atomic<bool> failed = false;
  const std::lock_guard turn(cutting_.turn);
  cutting_.pool.parallel_for(image.count, 1, [&](int64_t begin, int64_t end) {
    try {  // the pool takes no exceptions
      for (int64_t i = begin; i < end; ++i)
        keys[static_cast<size_t>(i)] = tile_key(salt, image.side, image.tile(static_cast<int>(i)));
    } catch (const std::bad_alloc&) {
      failed = true;
    }
  });
  if (failed) throw std::bad_alloc();
  return keys;
}

}  // namespace idefics
