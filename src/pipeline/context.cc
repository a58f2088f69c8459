#include "idefics/context.h"

#include <fmt/format.h>

#include <algorithm>

#include "idefics/error.h"

namespace idefics {

namespace {

void check_count(const char* what, int n, int64_t min, int64_t max) {
  if (n >= min && n <= max) return;
  throw Error(ErrorCode::kInvalidValue, fmt::format("{}: {} tokens, wanted {} to {}", what, n, min, max));
}

}  // namespace

TokenBuffer::TokenBuffer(std::vector<int32_t> prompt)
    : ids_(std::move(prompt)), prompt_length_(ids_.size()), end_(ids_.size()) {}

void TokenBuffer::skip_processing(int n) {
  check_count("skip_processing", n, 0, active_length() - 1);
  processed_ += static_cast<size_t>(n);
}

void TokenBuffer::rewind_processing(int n) {
  check_count("rewind_processing", n, 0, processed_length());
  processed_ -= static_cast<size_t>(n);
}

void TokenBuffer::chunk(int n) {
  check_count("chunk", n, 1, active_length());
  end_ = processed_ + static_cast<size_t>(n);
}

void TokenBuffer::advance_chunk() {
  if (!actively_chunked()) throw Error(ErrorCode::kInvalidValue, "advance_chunk: every token is active already");
  processed_ = end_;
  end_ = ids_.size();
}

void TokenBuffer::advance_with_token(int32_t id) {
  if (actively_chunked()) {
    throw Error(ErrorCode::kInvalidValue,
                "advance_with_token: a part of the prompt is not computed yet; advance_chunk comes first");
  }
  processed_ = end_;
  ids_.push_back(id);
  end_ = ids_.size();
}

std::span<const ImageMetadata> TextAndVisionContext::next_images() const {
  const auto first = std::find_if(images.begin(), images.end(), [&](const ImageMetadata& image) {
    return image.end_idx > tokens.processed_length();
  });
  return {first, images.end()};
}

void TextAndVisionContext::update(int32_t new_token) {
  if (tokens.actively_chunked()) {
    tokens.advance_chunk();
  } else {
    tokens.advance_with_token(new_token);
  }
}

void TextAndVisionContext::check() const {
  int end = 0;
  const auto is_vision = [&](int position) {
    const int32_t id = tokens.all()[static_cast<size_t>(position)];
    return std::find(vision_token_ids.begin(), vision_token_ids.end(), id) != vision_token_ids.end();
  };
  for (size_t i = 0; i < images.size(); ++i) {
    const ImageMetadata& image = images[i];
    const auto fail = [&](const std::string& problem) {
      throw Error(ErrorCode::kInvalidValue, fmt::format("request \"{}\": image {} at tokens [{}, {}): {}", request_id,
                                                        i, image.start_idx, image.end_idx, problem));
    };
    if (image.start_idx < 0 || image.start_idx >= image.end_idx) fail("the range is empty or negative");
    if (image.start_idx < end) fail(fmt::format("it begins before the end of the image before, {}", end));
    if (image.end_idx > tokens.size()) fail(fmt::format("the sequence has {} tokens", tokens.size()));
    if (!is_vision(image.start_idx) || !is_vision(image.end_idx - 1))
      fail("its first and last token must be vision tokens");
    end = image.end_idx;
  }
}

}  // namespace idefics
