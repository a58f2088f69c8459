#include "idefics/context.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "base/files.h"
#include "idefics/error.h"
#include "idefics/inputs.h"

namespace idefics {
namespace {

constexpr int32_t kImage = 9;

template <typename Call>
std::string error_of(const Call& call) {
  try {
    call();
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

std::vector<int32_t> vec(std::span<const int32_t> ids) { return {ids.begin(), ids.end()}; }
using Ids = std::vector<int32_t>;

TEST(TokenBuffer, a_prompt_is_active_and_then_each_new_token) {
  TokenBuffer tokens({1, 2, 3});
  EXPECT_EQ(vec(tokens.active()), (Ids{1, 2, 3}));
  tokens.advance_with_token(4);
  EXPECT_EQ(vec(tokens.active()), (Ids{4}));
  EXPECT_EQ(tokens.processed_length(), 3);
  EXPECT_EQ(vec(tokens.prompt()), (Ids{1, 2, 3}));
  EXPECT_EQ(vec(tokens.generated()), (Ids{4}));
  tokens.rewind_processing(2);
  EXPECT_EQ(vec(tokens.active()), (Ids{2, 3, 4}));
}

TEST(TokenBuffer, a_prompt_in_chunks) {
  TokenBuffer tokens({1, 2, 3, 4, 5});
  tokens.skip_processing(1);
  tokens.chunk(2);
  EXPECT_EQ(vec(tokens.active()), (Ids{2, 3}));
  EXPECT_TRUE(tokens.actively_chunked());
  EXPECT_NE(error_of([&] { tokens.advance_with_token(6); }), "");
  tokens.advance_chunk();
  EXPECT_EQ(vec(tokens.active()), (Ids{4, 5}));
  EXPECT_FALSE(tokens.actively_chunked());
  EXPECT_NE(error_of([&] { tokens.advance_chunk(); }), "");
}

TEST(TokenBuffer, counts_out_of_range_are_refused) {
  TokenBuffer tokens({1, 2, 3});
  EXPECT_EQ(error_of([&] { tokens.skip_processing(3); }), "skip_processing: 3 tokens, wanted 0 to 2");
  EXPECT_EQ(error_of([&] { tokens.skip_processing(-1); }), "skip_processing: -1 tokens, wanted 0 to 2");
  EXPECT_EQ(error_of([&] { tokens.rewind_processing(1); }), "rewind_processing: 1 tokens, wanted 0 to 0");
  EXPECT_EQ(error_of([&] { tokens.chunk(0); }), "chunk: 0 tokens, wanted 1 to 3");
  EXPECT_EQ(error_of([&] { tokens.chunk(4); }), "chunk: 4 tokens, wanted 1 to 3");
}

TextAndVisionContext with_images(std::vector<std::pair<int, int>> ranges) {
  TextAndVisionContext context;
  context.request_id = "r";
  context.tokens = TokenBuffer({1, kImage, kImage, 2, kImage, kImage, 3});
  context.vision_token_ids = {kImage};
  for (const auto& [start, end] : ranges) context.images.push_back({start, end, Tensor(), std::nullopt});
  return context;
}

TEST(TextAndVisionContext, next_images_are_those_with_tokens_to_come) {
  TextAndVisionContext context = with_images({{1, 3}, {4, 6}});
  context.check();
  EXPECT_EQ(context.next_images().size(), 2u);
  context.tokens.skip_processing(2);  // within the first one
  EXPECT_EQ(context.next_images().size(), 2u);
  context.tokens.skip_processing(1);
  EXPECT_EQ(context.next_images().size(), 1u);
  context.tokens.skip_processing(3);
  EXPECT_FALSE(context.needs_vision_encoding());
}

TEST(TextAndVisionContext, update_goes_from_chunk_to_chunk_and_then_from_token_to_token) {
  TextAndVisionContext context = with_images({});
  context.tokens.chunk(4);
  context.update(77);
  EXPECT_EQ(vec(context.tokens.active()), (Ids{kImage, kImage, 3}));
  context.update(8);
  EXPECT_EQ(vec(context.tokens.active()), (Ids{8}));
  EXPECT_EQ(context.tokens.size(), 8);
}

TEST(TextAndVisionContext, images_that_do_not_fit_are_refused) {
  const auto problem = [](std::vector<std::pair<int, int>> ranges) {
    return error_of([&] { with_images(std::move(ranges)).check(); });
  };
  EXPECT_EQ(problem({{1, 1}}), "request \"r\": image 0 at tokens [1, 1): the range is empty or negative");
  EXPECT_NE(problem({{-1, 2}}), "");
  EXPECT_NE(problem({{4, 6}, {1, 3}}).find("before the end of the image before, 6"), std::string::npos);
  EXPECT_NE(problem({{4, 8}}).find("the sequence has 7 tokens"), std::string::npos);
  EXPECT_NE(problem({{0, 2}}).find("must be vision tokens"), std::string::npos);
  EXPECT_NE(problem({{1, 4}}).find("must be vision tokens"), std::string::npos);
}

const std::filesystem::path kModel = std::filesystem::path(IDEFICS_SOURCE_DIR) / "models/tiny-cards";

TEST(Idefics3Tokenizer, makes_contexts_with_the_range_and_pixels_of_each_tile) {
  const Idefics3Tokenizer tokenizer = Idefics3Tokenizer::load(kModel);
  TextGenerationRequest request{.request_id = "one"};
  request.messages = {{"user",
                       {ContentPart::of_image(read_file(kModel / "samples/01.png", 1 << 24)),
                        ContentPart::of_text("What colour is the circle?")}}};
  const TextAndVisionContext context = tokenizer.new_context(request, true);
  context.check();
  EXPECT_EQ(context.images.size(), 5u);
  const int32_t image_id = tokenizer.processor().image_token_id();
  EXPECT_EQ(context.vision_token_ids, Ids{image_id});
  int in_images = 0;
  for (const ImageMetadata& image : context.images) {
    in_images += image.end_idx - image.start_idx;
    EXPECT_TRUE(image.image_hash.has_value());
  }
  EXPECT_EQ(in_images, std::ranges::count(context.tokens.all(), image_id));
  EXPECT_NE(context.images[0].image_hash, context.images[1].image_hash);
  EXPECT_EQ(context.sampling_params.max_tokens, context.max_length - context.tokens.size());
  EXPECT_FALSE(context.eos_token_ids.empty());

  const Idefics3Tokenizer narrow = Idefics3Tokenizer::load(kModel, 100);
  try {
    narrow.new_context(request);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kContextLengthExceeded);
    EXPECT_NE(std::string(e.what()).find("80 of them for 5 image tiles"), std::string::npos) << e.what();
  }
  EXPECT_THROW(Idefics3Tokenizer::load(kModel, 0), Error);
}

TEST(Idefics3Tokenizer, raw_prompts_and_misuse) {
  const Idefics3Tokenizer tokenizer = Idefics3Tokenizer::load(kModel);
  TextGenerationRequest request{.prompt = "User:<image>"};
  EXPECT_NE(error_of([&] { tokenizer.new_context(request); }).find("0 images, but the text has 1 places"),
            std::string::npos);
  request.images = {read_file(kModel / "samples/01.png", 1 << 24)};
  EXPECT_EQ(tokenizer.new_context(request).images.size(), 5u);
  request.messages = {{"user", {ContentPart::of_text("hello")}}};
  EXPECT_NE(error_of([&] { tokenizer.new_context(request); }).find("give one of the two"), std::string::npos);
  EXPECT_EQ(tokenizer.decode(tokenizer.encode("three shapes", false)), "three shapes");
}

KVCacheParams small_cache(DType dtype = DType::kF32) {
  KVCacheParams params;
  params.dtype = dtype;
  params.n_kv_heads = 2;
  params.head_dim = 20;
  params.num_layers = 3;
  params.page_size = 64;
  return params;
}

TextAndVisionContext sequence(const std::string& id, int length) {
  TextAndVisionContext context;
  context.request_id = id;
  context.tokens = TokenBuffer(Ids(static_cast<size_t>(length), 1));
  return context;
}

TEST(PagedKVCacheManager, gives_pages_and_takes_them_back) {
  PagedKVCacheManager kv(small_cache(), 4);
  const TextAndVisionContext a = sequence("a", 65), b = sequence("b", 64), c = sequence("c", 100);
  for (const auto* s : {&a, &b, &c}) kv.claim(*s);
  kv.alloc(a);
  kv.alloc(b);
  EXPECT_EQ(kv.num_free_pages(), 1);
  const std::string error = error_of([&] { kv.alloc(c); });
  EXPECT_NE(error.find("2 more pages of 64 tokens are needed, 1 of 4 are free"), std::string::npos) << error;
  EXPECT_EQ(kv.num_free_pages(), 1) << "a refused alloc takes nothing";
  kv.alloc(b, 2);
  EXPECT_EQ(kv.num_free_pages(), 0);

  const KVCacheInputs inputs = kv.runtime_inputs({&a, &b});
  EXPECT_EQ(inputs.lookup_table.shape(), (std::vector<int64_t>{2, 2}));
  EXPECT_EQ(inputs.cache_lengths.as<uint32_t>()[0], 0u);
  EXPECT_EQ(inputs.max_prompt_length.as<uint32_t>()[0], 65u);
  EXPECT_EQ(inputs.max_cache_length.as<uint32_t>()[0], 65u);
  EXPECT_EQ(inputs.kv_blocks.shape(), (std::vector<int64_t>{4, 3, 2, 1, 64 * 20 + 64 * 32}));
  EXPECT_EQ(inputs.page_stride.as<int64_t>()[0], int64_t{3} * 2 * (64 * 20 + 64 * 32));
  EXPECT_EQ(static_cast<size_t>(inputs.page_stride.as<int64_t>()[0]) * 4, kv.bytes_per_page());
  std::set<uint32_t> pages(inputs.lookup_table.as<uint32_t>().begin(), inputs.lookup_table.as<uint32_t>().end());
  EXPECT_EQ(pages.size(), 4u) << "no page has two owners";

  kv.release(a);
  EXPECT_FALSE(kv.contains(a));
  EXPECT_EQ(kv.num_free_pages(), 2);
  kv.alloc(c);
}

TEST(PagedKVCacheManager, misuse_is_refused) {
  PagedKVCacheManager kv(small_cache(), 4);
  const TextAndVisionContext a = sequence("a", 65);
  EXPECT_EQ(error_of([&] { kv.alloc(a); }), "request \"a\": the cache does not know it; claim it first");
  kv.claim(a);
  EXPECT_NE(error_of([&] { kv.claim(a); }), "");
  EXPECT_EQ(error_of([&] { kv.runtime_inputs({&a}); }),
            "request \"a\": it has too few pages; alloc comes before each step");
  EXPECT_NE(error_of([&] { kv.alloc(a, 0); }), "");
  KVCacheParams params = small_cache();
  params.page_size = 100;
  EXPECT_EQ(error_of([&] { PagedKVCacheManager(params, 1); }),
            "KVCacheParams: page_size is 100, wanted a multiple of 64");
  params = small_cache(DType::kF16);
  EXPECT_NE(error_of([&] { PagedKVCacheManager(params, 1); }), "");
  params = small_cache();
  params.head_dim = 0;
  EXPECT_NE(error_of([&] { PagedKVCacheManager(params, 1); }), "");
  EXPECT_NE(error_of([&] { PagedKVCacheManager(small_cache(), 0); }), "");
  EXPECT_NE(error_of([&] { PagedKVCacheManager(small_cache(), int64_t{1} << 50); }), "");
}

TEST(PagedKVCacheManager, its_bytes_live_as_long_as_inputs_that_borrow_them) {
  const TextAndVisionContext a = sequence("a", 1);
  KVCacheInputs inputs;
  {
    PagedKVCacheManager kv(small_cache(DType::kBf16), 2);
    kv.claim(a);
    kv.alloc(a);
    inputs = kv.runtime_inputs({&a});
  }
  EXPECT_EQ(inputs.kv_blocks.as<uint16_t>().back(), 0);
}

TEST(PaddingFrames, are_found_after_rounding) {
  Tensor padded = Tensor::zeros(TensorDType::kF32, {1, 2, 3, 4, 4});
  padded.as_mutable<float>()[50] = 1e-41f;  // a float32, but 0 in bfloat16
  EXPECT_EQ(remove_padding_frames(padded, Architecture::kSmolVlm, DType::kF32).frames_per_sample, std::vector<int>{1});
  EXPECT_EQ(remove_padding_frames(padded, Architecture::kIdefics3, DType::kF32).frames_per_sample, std::vector<int>{1});
  EXPECT_THROW(remove_padding_frames(padded, Architecture::kIdefics3, DType::kBf16), Error);
  const RealFrames kept = remove_padding_frames(padded, Architecture::kSmolVlm, DType::kBf16);
  EXPECT_EQ(kept.pixel_values->describe(), "bfloat16 [1, 3, 4, 4]");
  EXPECT_THROW(
      remove_padding_frames(Tensor::zeros(TensorDType::kF32, {2, 3, 4, 4}), Architecture::kSmolVlm, DType::kF32),
      Error);
  EXPECT_THROW(
      remove_padding_frames(Tensor::zeros(TensorDType::kF32, {0, 2, 3, 4, 4}), Architecture::kSmolVlm, DType::kF32),
      Error);
}

}  // namespace
}  // namespace idefics
