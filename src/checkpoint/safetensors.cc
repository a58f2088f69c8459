#include "checkpoint/safetensors.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <boost/json/basic_parser_impl.hpp>
#include <cstring>

#include "base/check.h"
#include "base/checked_math.h"
#include "base/half.h"
#include "base/json.h"
#include "idefics/error.h"

namespace idefics {

namespace {

constexpr uint64_t kMaxHeaderBytes = 100'000'000;
constexpr size_t kMaxTensors = 1 << 17;
constexpr size_t kMaxMetadata = 1 << 12;
constexpr size_t kMaxRank = 8;
constexpr std::string_view kMetadataKey = "__metadata__";

struct DTypeEntry {
  StoredDType dtype;
  std::string_view name;
  uint64_t bits;
};
constexpr std::array kDTypes = {
    DTypeEntry{StoredDType::kF32, "F32", 32},       DTypeEntry{StoredDType::kF16, "F16", 16},
    DTypeEntry{StoredDType::kBf16, "BF16", 16},     DTypeEntry{StoredDType::kF64, "F64", 64},
    DTypeEntry{StoredDType::kC64, "C64", 64},       DTypeEntry{StoredDType::kF8E4M3, "F8_E4M3", 8},
    DTypeEntry{StoredDType::kF8E5M2, "F8_E5M2", 8}, DTypeEntry{StoredDType::kF8E8M0, "F8_E8M0", 8},
    DTypeEntry{StoredDType::kF6E2M3, "F6_E2M3", 6}, DTypeEntry{StoredDType::kF6E3M2, "F6_E3M2", 6},
    DTypeEntry{StoredDType::kF4, "F4", 4},          DTypeEntry{StoredDType::kI64, "I64", 64},
    DTypeEntry{StoredDType::kI32, "I32", 32},       DTypeEntry{StoredDType::kI16, "I16", 16},
    DTypeEntry{StoredDType::kI8, "I8", 8},          DTypeEntry{StoredDType::kU64, "U64", 64},
    DTypeEntry{StoredDType::kU32, "U32", 32},       DTypeEntry{StoredDType::kU16, "U16", 16},
    DTypeEntry{StoredDType::kU8, "U8", 8},          DTypeEntry{StoredDType::kBool, "BOOL", 8},
};

const DTypeEntry& entry_of(StoredDType dtype) { return kDTypes[static_cast<size_t>(dtype)]; }

// Takes the events of the JSON parser. A DOM would lose duplicate keys and cost many times the header's size.
class HeaderHandler {
 public:
  static constexpr size_t max_object_size = static_cast<size_t>(-1);
  static constexpr size_t max_array_size = static_cast<size_t>(-1);
  static constexpr size_t max_key_size = 4096;
  static constexpr size_t max_string_size = static_cast<size_t>(-1);
  using Code = boost::system::error_code;
  using View = json::string_view;

  HeaderHandler(std::span<const std::byte> data, std::string_view where) : data_(data), where_(where) {}

  SafetensorsHeader take() { return std::move(header_); }
  [[noreturn]] void fail(const std::string& problem) const {
    throw Error(ErrorCode::kBadModel, fmt::format("{}: {}", where_, problem));
  }

  bool on_document_begin(Code&) { return true; }
  bool on_document_end(Code&) { return true; }
  bool on_object_begin(Code&) {
    if (state_ == State::kStart) {
      state_ = State::kTop;
    } else if (state_ == State::kTop && tensor_name_ == kMetadataKey) {
      begin_metadata();
    } else if (state_ == State::kTop) {
      begin_tensor();
    } else {
      unexpected("an object");
    }
    return true;
  }
  bool on_object_end(size_t, Code&) {
    if (state_ == State::kTensor) end_tensor();
    state_ = State::kTop;
    return true;
  }
  bool on_array_begin(Code&) {
    if (state_ != State::kTensor || field_ == Field::kDType) unexpected("an array");
    state_ = field_ == Field::kShape ? State::kShape : State::kOffsets;
    return true;
  }
  bool on_array_end(size_t, Code&) {
    if (state_ == State::kOffsets && num_offsets_ != 2) fail_tensor("data_offsets must hold two numbers");
    state_ = State::kTensor;
    return true;
  }
  bool on_key_part(View part, size_t, Code&) { return append(key_, part); }
  bool on_key(View part, size_t, Code&) {
    append(key_, part);
    take_key();
    key_.clear();
    return true;
  }
  bool on_string_part(View part, size_t, Code&) { return append(string_, part); }
  bool on_string(View part, size_t, Code&) {
    append(string_, part);
    take_string();
    string_.clear();
    return true;
  }
  bool on_number_part(View, Code&) { return true; }
  bool on_int64(int64_t value, View, Code&) { return take_number(value); }
  bool on_uint64(uint64_t, View, Code&) { unexpected("a number beyond 2^63"); }
  bool on_double(double, View, Code&) { unexpected("a fraction"); }
  bool on_bool(bool, Code&) { unexpected("true or false"); }
  bool on_null(Code&) { unexpected("null"); }
  bool on_comment_part(View, Code&) { return true; }
  bool on_comment(View, Code&) { return true; }

 private:
  enum class State { kStart, kTop, kMetadata, kTensor, kShape, kOffsets };
  enum class Field { kNone = 0, kDType = 1, kShape = 2, kOffsets = 4 };
  static constexpr int kAllFields = 7;

  static bool append(std::string& text, View part) {
    text.append(part.data(), part.size());
    return true;
  }

  [[noreturn]] void fail_tensor(std::string_view problem) const {
    fail(fmt::format("tensor {}: {}", quote_name(tensor_name_), problem));
  }
  [[noreturn]] void unexpected(std::string_view what) const {
    if (state_ == State::kStart) fail(fmt::format("the header is {}, wanted an object", what));
    if (state_ == State::kMetadata) fail(fmt::format("__metadata__ holds {}, wanted strings only", what));
    if (state_ == State::kTop) fail_tensor(fmt::format("is {}, wanted an object", what));
    fail_tensor(fmt::format("{} is or holds {}", field_name(), what));
  }
  std::string_view field_name() const {
    return field_ == Field::kDType ? "dtype" : field_ == Field::kShape ? "shape" : "data_offsets";
  }

  void take_key() {
    if (state_ == State::kTop) {
      tensor_name_ = key_;
    } else if (state_ == State::kMetadata) {
      metadata_key_ = key_;
    } else {
      take_field();
    }
  }
  void take_field() {
    field_ = key_ == "dtype"          ? Field::kDType
             : key_ == "shape"        ? Field::kShape
             : key_ == "data_offsets" ? Field::kOffsets
                                      : Field::kNone;
    if (field_ == Field::kNone) fail_tensor(fmt::format("has the unknown key {}", quote_name(key_)));
    if (seen_fields_ & static_cast<int>(field_)) fail_tensor(fmt::format("has the key {} twice", field_name()));
    seen_fields_ |= static_cast<int>(field_);
  }
  void take_string() {
    if (state_ == State::kMetadata) {
      if (header_.metadata.size() == kMaxMetadata)
        fail(fmt::format("__metadata__ has more than {} keys", kMaxMetadata));
      header_.metadata.emplace_back(metadata_key_, string_);
    } else if (state_ == State::kTensor && field_ == Field::kDType) {
      take_dtype();
    } else {
      unexpected("a string");
    }
  }
  void take_dtype() {
    const auto* found =
        std::find_if(kDTypes.begin(), kDTypes.end(), [&](const DTypeEntry& e) { return e.name == string_; });
    if (found == kDTypes.end()) fail_tensor(fmt::format("dtype is {}, which is unknown", quote_name(string_)));
    tensor_.dtype = found->dtype;
  }
  bool take_number(int64_t value) {
    if (state_ != State::kShape && state_ != State::kOffsets) unexpected("a number");
    if (value < 0) unexpected("a negative number");
    if (state_ == State::kShape) {
      if (tensor_.shape.size() == kMaxRank) fail_tensor(fmt::format("shape has more than {} dimensions", kMaxRank));
      tensor_.shape.push_back(value);
    } else {
      if (num_offsets_ == 2) fail_tensor("data_offsets must hold two numbers");
      offsets_[num_offsets_++] = static_cast<uint64_t>(value);
    }
    return true;
  }

  void begin_metadata() {
    if (seen_metadata_) fail("__metadata__ is there twice");
    seen_metadata_ = true;
    state_ = State::kMetadata;
  }
  void begin_tensor() {
    if (header_.tensors.size() == kMaxTensors) fail(fmt::format("has more than {} tensors", kMaxTensors));
    tensor_ = TensorInfo{};
    num_offsets_ = 0;
    seen_fields_ = 0;
    state_ = State::kTensor;
  }
  void end_tensor() {
    if (seen_fields_ != kAllFields) fail_tensor("lacks one of the keys dtype, shape, data_offsets");
    const auto [begin, end] = offsets_;
    if (begin > end || end > data_.size()) {
      fail_tensor(
          fmt::format("data_offsets are {} to {}, but the file has {} bytes of data", begin, end, data_.size()));
    }
    const std::optional<uint64_t> bytes = num_bytes();
    if (!bytes) fail_tensor(fmt::format("shape {} is too large", describe_shape(tensor_.shape)));
    if (*bytes != end - begin) {
      fail_tensor(fmt::format("shape {} of {} takes {} bytes, but data_offsets {} to {} hold {}",
                              describe_shape(tensor_.shape), stored_dtype_name(tensor_.dtype), *bytes, begin, end,
                              end - begin));
    }
    tensor_.name = tensor_name_;
    tensor_.bytes = data_.subspan(begin, end - begin);
    header_.tensors.push_back(std::move(tensor_));
  }
  // Nothing when the size does not fit 64 bits or is not a whole number of bytes.
  std::optional<uint64_t> num_bytes() const {
    std::optional<uint64_t> count = 1;
    for (const int64_t dim : tensor_.shape) count = count ? checked_mul(*count, static_cast<uint64_t>(dim)) : count;
    if (count) count = checked_mul(*count, entry_of(tensor_.dtype).bits);
    if (!count || *count % 8 != 0) return std::nullopt;
    return *count / 8;
  }

  std::span<const std::byte> data_;
  std::string_view where_;
  SafetensorsHeader header_;
  State state_ = State::kStart;
  std::string key_, string_;  // being read, possibly in parts
  std::string tensor_name_, metadata_key_;
  bool seen_metadata_ = false;
  TensorInfo tensor_;
  Field field_ = Field::kNone;
  int seen_fields_ = 0;
  std::array<uint64_t, 2> offsets_{};
  size_t num_offsets_ = 0;
};

SafetensorsHeader parse_header(std::string_view text, std::span<const std::byte> data, std::string_view where) {
  json::parse_options options;
  options.max_depth = 3;  // header, tensor, shape
  json::basic_parser<HeaderHandler> parser(options, data, where);
  boost::system::error_code error;
  const size_t used = parser.write_some(false, text.data(), text.size(), error);
  if (error)
    parser.handler().fail(fmt::format("the header is not valid JSON ({} at byte {})", error.message(), 8 + used));
  if (used != text.size())
    parser.handler().fail(fmt::format("the header has text after its end (at byte {})", 8 + used));
  return parser.handler().take();
}

// Sorts the tensors by place and fails unless they fill `data` without gap and overlap.
void check_places(SafetensorsHeader& header, std::span<const std::byte> data, std::string_view where) {
  std::sort(header.tensors.begin(), header.tensors.end(), [](const TensorInfo& a, const TensorInfo& b) {
    return std::pair(a.bytes.data(), a.bytes.size()) < std::pair(b.bytes.data(), b.bytes.size());
  });
  size_t at = 0;
  for (const TensorInfo& tensor : header.tensors) {
    const auto begin = static_cast<size_t>(tensor.bytes.data() - data.data());
    if (begin != at) {
      throw Error(ErrorCode::kBadModel,
                  fmt::format("{}: tensor {} begins at {}, wanted {}: the tensors {}", where, quote_name(tensor.name),
                              begin, at, begin < at ? "overlap" : "leave a gap"));
    }
    at += tensor.bytes.size();
  }
  if (at != data.size()) {
    throw Error(ErrorCode::kBadModel, fmt::format("{}: {} bytes follow the last tensor", where, data.size() - at));
  }
}

template <typename Key>
void check_unique(std::vector<Key> names, std::string_view where) {
  std::sort(names.begin(), names.end());
  const auto twice = std::adjacent_find(names.begin(), names.end());
  if (twice != names.end()) {
    throw Error(ErrorCode::kBadModel, fmt::format("{}: the key {} is there twice", where, quote_name(*twice)));
  }
}

void check_names(const SafetensorsHeader& header, std::string_view where) {
  std::vector<std::string_view> names;
  names.reserve(header.tensors.size());
  for (const TensorInfo& tensor : header.tensors) names.push_back(tensor.name);
  check_unique(std::move(names), where);
  std::vector<std::string_view> keys;
  for (const auto& [key, value] : header.metadata) keys.push_back(key);
  check_unique(std::move(keys), where);
}

template <typename T>
T load(const std::byte* bytes, size_t index) {
  T value;
  std::memcpy(&value, bytes + index * sizeof(T), sizeof(T));  // a tensor may lie anywhere
  return value;
}

// out[i] = element index(i) of the bytes, as float.
template <typename Index>
void convert(const TensorInfo& tensor, std::span<float> out, Index index) {
  const std::byte* bytes = tensor.bytes.data();
  switch (tensor.dtype) {
    case StoredDType::kF32:
      for (size_t i = 0; i < out.size(); ++i) out[i] = load<float>(bytes, index(i));
      return;
    case StoredDType::kF16:
      for (size_t i = 0; i < out.size(); ++i) out[i] = f16_to_f32(load<uint16_t>(bytes, index(i)));
      return;
    case StoredDType::kBf16:
      for (size_t i = 0; i < out.size(); ++i) out[i] = bf16_to_f32(load<uint16_t>(bytes, index(i)));
      return;
    default: IDEFICS_CHECK(!"a weight dtype");
  }
}

// True when any value has all exponent bits set. A sum of comparisons, which the compiler turns into vector code.
template <typename Bits>
bool has_nonfinite(std::span<const std::byte> bytes, Bits exponent) {
  constexpr size_t kBlock = 4096;  // values between two tests of the sum
  const size_t count = bytes.size() / sizeof(Bits);
  for (size_t first = 0; first < count; first += kBlock) {
    const size_t last = std::min(first + kBlock, count);
    Bits found = 0;
    for (size_t i = first; i < last; ++i) {
      Bits value;
      std::memcpy(&value, bytes.data() + i * sizeof(Bits), sizeof(Bits));
      found = static_cast<Bits>(found | static_cast<Bits>((value & exponent) == exponent));
    }
    if (found != 0) return true;
  }
  return false;
}

}  // namespace

std::string_view stored_dtype_name(StoredDType dtype) { return entry_of(dtype).name; }

bool is_weight_dtype(StoredDType dtype) {
  return dtype == StoredDType::kF32 || dtype == StoredDType::kF16 || dtype == StoredDType::kBf16;
}

std::string quote_name(std::string_view name) {
  std::string text = json::serialize(json::string_view(name.data(), name.size()));
  if (text.size() > 200) text = text.substr(0, 197) + "...";
  return text;
}

std::string describe_shape(std::span<const int64_t> shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

int64_t TensorInfo::num_elements() const {
  int64_t count = 1;
  for (const int64_t dim : shape) count *= dim;
  return count;
}

SafetensorsHeader parse_safetensors(std::span<const std::byte> file, std::string_view where) {
  const auto fail = [&](const std::string& problem) {
    throw Error(ErrorCode::kBadModel, fmt::format("{}: {}", where, problem));
  };
  if (file.size() < 8) fail(fmt::format("has {} bytes, wanted a safetensors file of 8 or more", file.size()));
  uint64_t header_bytes = 0;
  for (size_t i = 0; i < 8; ++i) header_bytes |= std::to_integer<uint64_t>(file[i]) << (8 * i);
  if (header_bytes > kMaxHeaderBytes) {
    fail(fmt::format("the header has {} bytes, wanted at most {}: not a safetensors file", header_bytes,
                     kMaxHeaderBytes));
  }
  if (header_bytes > file.size() - 8) {
    fail(
        fmt::format("the header has {} bytes, but only {} follow: the file is cut off", header_bytes, file.size() - 8));
  }
  const std::string_view text(reinterpret_cast<const char*>(file.data()) + 8, header_bytes);
  if (!text.starts_with('{')) fail("the header does not begin with {: not a safetensors file");
  const std::span<const std::byte> data = file.subspan(8 + header_bytes);
  SafetensorsHeader header = parse_header(text, data, where);
  check_places(header, data, where);
  check_names(header, where);
  return header;
}

Safetensors::Safetensors(const std::filesystem::path& path)
    : where_(path.string()), file_(path, ErrorCode::kBadModel), header_(parse_safetensors(file_.bytes(), where_)) {}

void read_as_f32(const TensorInfo& tensor, std::span<float> out, int64_t first) {
  IDEFICS_CHECK(first >= 0 &&
                static_cast<uint64_t>(first) + out.size() <= static_cast<uint64_t>(tensor.num_elements()));
  const auto offset = static_cast<size_t>(first);
  if (!tensor.channels_last) {
    convert(tensor, out, [=](size_t i) { return offset + i; });
    return;
  }
  IDEFICS_CHECK(tensor.shape.size() == 4);
  const auto c = static_cast<size_t>(tensor.shape[1]), h = static_cast<size_t>(tensor.shape[2]),
             w = static_cast<size_t>(tensor.shape[3]);
  convert(tensor, out, [=](size_t i) {  // element [d, channel, y, x] lies at [d, y, x, channel]
    const size_t element = offset + i, x = element % w, y = element / w % h, channel = element / (w * h) % c;
    return ((element / (w * h * c) * h + y) * w + x) * c + channel;
  });
}

bool has_nonfinite(StoredDType dtype, std::span<const std::byte> bytes) {
  switch (dtype) {
    case StoredDType::kF32: return has_nonfinite<uint32_t>(bytes, 0x7f800000u);
    case StoredDType::kBf16: return has_nonfinite<uint16_t>(bytes, 0x7f80u);
    case StoredDType::kF16: return has_nonfinite<uint16_t>(bytes, 0x7c00u);
    default: return false;
  }
}

}  // namespace idefics
