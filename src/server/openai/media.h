// The URLs of pictures to their bytes.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "server/fetch/url.h"

namespace idefics::openai {

struct MediaPolicy {
  std::filesystem::path folder;  // file: URLs may name files below it; empty: none may
  size_t max_bytes = size_t{20} << 20;
  fetch::AllowedHosts hosts = {};  // https: URLs (and http: ones) may name pictures there
};

// The encoded file that `url` means; `param` names the field in errors.
//   data:image/png;base64,...   (png, jpeg, jpg, webp, tiff, gif, bmp)
//   file:///folder/picture.png  below the folder of the policy; links that lead out of it do not count as below
// ApiError 400: image_url_not_allowed (any other URL, those of find_fetch_url too), image_invalid (not base64, no such
// file), image_too_large.
std::string read_picture_url(std::string_view url, const std::string& param, const MediaPolicy& policy);

// What has to be fetched: an http: or https: URL of a host of the policy. Nothing when the URL is of another kind, or
// when the policy has no hosts. ApiError 400: image_url_not_allowed (another host, or not plainly a URL).
std::optional<fetch::Url> find_fetch_url(std::string_view url, const std::string& param, const MediaPolicy& policy);

// Strict base64: the standard alphabet, padded, nothing else in between. False when `text` is not that.
bool decode_base64(std::string_view text, std::string& bytes);

}  // namespace idefics::openai
