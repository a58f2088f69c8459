#include "checkpoint/safetensors.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <map>
#include <random>
#include <set>

#include "base/half.h"
#include "checkpoint/test_files.h"

namespace idefics {
namespace {

using test_files::error_of;
using test_files::with_length;

constexpr int kSeeds = 100;

std::span<const std::byte> bytes_of(std::string_view text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

SafetensorsHeader parse(std::string_view file) { return parse_safetensors(bytes_of(file), "f"); }

// A file as text, every part of which a corruption can change.
struct Draft {
  struct Tensor {
    std::string name, dtype, shape, offsets, more;  // JSON texts
    int64_t rows = 0, cols = 0;
    size_t begin = 0, end = 0;
    std::string json() const {
      return fmt::format(R"({}:{{"dtype":{},"shape":{},"data_offsets":{}{}}})", name, dtype, shape, offsets, more);
    }
  };
  std::vector<Tensor> tensors;
  std::vector<std::string> members;  // further members of the header
  std::string before = "{", after = "}";
  std::string data;
  std::function<void(std::string&)> edit_file = [](std::string&) {};

  std::string file() const {
    std::string header = before;
    const auto add = [&](const std::string& member) {
      if (header != before) header += ',';
      header += member;
    };
    for (const Tensor& t : tensors) add(t.json());
    for (const std::string& m : members) add(m);
    std::string out = with_length(header + after, data);
    edit_file(out);
    return out;
  }
};

std::string pair(size_t a, size_t b) { return fmt::format("[{},{}]", a, b); }

// 2 to 6 matrices of drawn sizes and dtypes, each of at least two bytes.
Draft draw(std::mt19937& rng) {
  const auto below = [&](uint32_t n) { return static_cast<int64_t>(rng() % n); };
  static const std::pair<const char*, size_t> kTypes[] = {{"F32", 4}, {"F16", 2}, {"BF16", 2}, {"I64", 8}, {"U8", 1}};
  Draft draft;
  const int64_t count = 2 + below(5);
  for (int64_t i = 0; i < count; ++i) {
    const auto& [dtype, size] = kTypes[below(std::size(kTypes))];
    Draft::Tensor t;
    t.rows = 2 + below(4);
    t.cols = 1 + below(4);
    t.name = fmt::format("\"t{}.weight\"", i);
    t.dtype = fmt::format("\"{}\"", dtype);
    t.shape = pair(static_cast<size_t>(t.rows), static_cast<size_t>(t.cols));
    t.begin = draft.data.size();
    t.end = t.begin + static_cast<size_t>(t.rows * t.cols) * size;
    t.offsets = pair(t.begin, t.end);
    draft.data.resize(t.end, '\xff');
    draft.tensors.push_back(t);
  }
  if (below(2)) draft.members.push_back("\"__metadata__\":{\"format\":\"pt\"}");
  draft.after += std::string(static_cast<size_t>(below(9)), ' ');
  return draft;
}

void set_length(std::string& file, uint64_t n) {
  for (size_t i = 0; i < 8; ++i) file[i] = static_cast<char>(n >> (8 * i));
}
uint64_t length(const std::string& file) {
  uint64_t n = 0;
  for (size_t i = 0; i < 8; ++i) n |= uint64_t{static_cast<uint8_t>(file[i])} << (8 * i);
  return n;
}

using Corruption = std::function<void(Draft&, Draft::Tensor&)>;  // the file, and one tensor of it

std::map<std::string, Corruption> length_corruptions() {
  using D = Draft;
  using T = Draft::Tensor;
  const auto edit = [](std::function<void(std::string&)> f) { return [f](D& d, T&) { d.edit_file = f; }; };
  return {
      {"empty file", edit([](std::string& f) { f.clear(); })},
      {"seven bytes", edit([](std::string& f) { f.resize(7); })},
      {"no header", edit([](std::string& f) { set_length(f, 0); })},
      {"length past the end", edit([](std::string& f) { set_length(f, f.size() - 7); })},
      {"length 2^63", edit([](std::string& f) { set_length(f, uint64_t{1} << 63); })},
      {"length 2^64 - 1", edit([](std::string& f) { set_length(f, ~uint64_t{0}); })},
      {"length above the limit", edit([](std::string& f) { set_length(f, 100'000'001); })},
      {"length of one", edit([](std::string& f) { set_length(f, 1); })},
      {"length one too large", edit([](std::string& f) { set_length(f, length(f) + 1); })},
      {"length without the last brace", edit([](std::string& f) { set_length(f, f.rfind('}') - 8); })},
      {"length in big endian", edit([](std::string& f) { std::reverse(f.begin(), f.begin() + 8); })},
      {"bytes after the last tensor", [](D& d, T&) { d.data += "xy"; }},
      {"last byte cut off", edit([](std::string& f) { f.pop_back(); })},
      {"all data cut off", edit([](std::string& f) { f.resize(8 + length(f)); })},
      {"blank before the header", [](D& d, T&) { d.before = " {"; }},
      {"byte order mark", [](D& d, T&) { d.before = "\xef\xbb\xbf{"; }},
      {"text after the header", [](D& d, T&) { d.after += "{}"; }},
      {"NUL after the header", [](D& d, T&) { d.after += std::string(1, '\0'); }},
  };
}

std::map<std::string, Corruption> offset_corruptions() {
  using D = Draft;
  using T = Draft::Tensor;
  const auto offsets = [](std::string text) { return [text](D&, T& t) { t.offsets = text; }; };
  return {
      {"gap",
       [](D& d, T&) {
         d.data += "xx";
         d.tensors.back().offsets = pair(d.tensors.back().begin + 2, d.tensors.back().end + 2);
       }},
      {"gap at the start",
       [](D& d, T&) {
         d.data += "x";
         for (T& t : d.tensors) t.offsets = pair(t.begin + 1, t.end + 1);
       }},
      {"overlap",
       [](D& d, T&) {
         d.tensors.back().offsets = pair(d.tensors.back().begin - 1, d.tensors.back().end - 1);
         d.data.pop_back();
       }},
      {"two tensors in one place",
       [](D& d, T& t) {
         d.tensors.push_back(t);
         d.tensors.back().name = "\"again\"";
       }},
      {"end before begin", [](D&, T& t) { t.offsets = pair(t.end, t.begin); }},
      {"beyond the data", [](D& d, T& t) { t.offsets = pair(t.begin + d.data.size(), t.end + d.data.size()); }},
      {"end of 2^63 - 1", [](D&, T& t) { t.offsets = pair(t.begin, (uint64_t{1} << 63) - 1); }},
      {"end of 2^64 - 1", [](D&, T& t) { t.offsets = pair(t.begin, ~uint64_t{0}); }},
      {"end of 10^30", [](D&, T& t) { t.offsets = "[0,1000000000000000000000000000000]"; }},
      {"negative begin", [](D&, T& t) { t.offsets = fmt::format("[-8,{}]", t.end); }},
      {"fraction", [](D&, T& t) { t.offsets = fmt::format("[{}.0,{}]", t.begin, t.end); }},
      {"exponent", offsets("[0,1e2]")},
      {"three offsets", [](D&, T& t) { t.offsets = fmt::format("[{},{},0]", t.begin, t.end); }},
      {"one offset", offsets("[0]")},
      {"no offset", offsets("[]")},
      {"offsets as texts", offsets("[\"0\",\"4\"]")},
      {"offsets null", offsets("null")},
      {"offsets an object", offsets("{\"begin\":0}")},
      {"offsets nested", offsets("[[0],[4]]")},
      {"offsets true", offsets("[true,false]")},
  };
}

std::map<std::string, Corruption> shape_and_dtype_corruptions() {
  using D = Draft;
  using T = Draft::Tensor;
  const auto shape = [](std::string text) { return [text](D&, T& t) { t.shape = text; }; };
  const auto dtype = [](std::string text) { return [text](D&, T& t) { t.dtype = text; }; };
  return {
      {"a row too many",
       [](D&, T& t) { t.shape = pair(static_cast<size_t>(t.rows + 1), static_cast<size_t>(t.cols)); }},
      {"negative shape", [](D&, T& t) { t.shape = fmt::format("[{},{}]", -t.rows, -t.cols); }},
      {"shape with a fraction", shape("[2.5,2]")},
      {"shape product above 2^64", shape("[4294967296,4294967296,4294967296]")},
      {"shape product wraps to zero", shape("[4611686018427387904,16]")},
      {"shape times size wraps", shape("[4611686018427387904,8]")},
      {"shape above 2^63", shape("[9223372036854775808]")},
      {"shape of texts", shape("[\"2\"]")},
      {"shape a number", shape("4")},
      {"shape null", shape("[null]")},
      {"shape of nine dimensions", shape("[1,1,1,1,1,1,1,1,2]")},
      {"shape nested", shape("[[2,3]]")},
      {"shape 100,000 deep", shape(std::string(100'000, '['))},
      {"unknown dtype", dtype("\"F128\"")},
      {"dtype in small letters", dtype("\"f32\"")},
      {"dtype empty", dtype("\"\"")},
      {"dtype a number", dtype("32")},
      {"dtype a list", dtype("[\"F32\"]")},
      {"dtype null", dtype("null")},
      {"dtype of another size",
       [](D&, T& t) { t.dtype = t.dtype == "\"F64\""   ? "\"F32\""
                                : t.dtype == "\"I64\"" ? "\"F32\""
                                                       : "\"F64\""; }},
      {"a third of a byte",
       [](D&, T& t) {
         t.dtype = "\"F6_E2M3\"";
         t.shape = "[1]";
       }},
  };
}

std::map<std::string, Corruption> json_corruptions() {
  using D = Draft;
  using T = Draft::Tensor;
  const auto member = [](std::string text) { return [text](D& d, T&) { d.members.push_back(text); }; };
  const auto name = [](std::string text) { return [text](D&, T& t) { t.name = text; }; };
  return {
      {"dtype twice", [](D&, T& t) { t.more = ",\"dtype\":" + t.dtype; }},
      {"shape twice", [](D&, T& t) { t.more = ",\"shape\":" + t.shape; }},
      {"offsets twice", [](D&, T& t) { t.more = ",\"data_offsets\":" + t.offsets; }},
      {"unknown key", [](D&, T& t) { t.more = ",\"compression\":\"zstd\""; }},
      {"dtype missing",
       [](D& d, T& t) {
         d.members.push_back(fmt::format(R"("x":{{"shape":[0],"data_offsets":{}}})", pair(t.end, t.end)));
       }},
      {"shape missing",
       [](D& d, T& t) {
         d.members.push_back(fmt::format(R"("x":{{"dtype":"U8","data_offsets":{}}})", pair(t.end, t.end)));
       }},
      {"offsets missing", member("\"x\":{\"dtype\":\"U8\",\"shape\":[0]}")},
      {"empty entry", member("\"x\":{}")},
      {"name twice",
       [](D& d, T& t) {
         T again = t;
         again.offsets = pair(d.data.size(), d.data.size() + t.end - t.begin);
         d.data.resize(d.data.size() + t.end - t.begin);
         d.tensors.push_back(again);
       }},
      {"name twice, once escaped",
       [](D& d, T& t) {
         d.members.push_back(fmt::format(R"("\u0074{}:{{"dtype":"U8","shape":[0],"data_offsets":{}}})",
                                         t.name.substr(2), pair(t.end, t.end)));
       }},
      {"entry a list", member("\"x\":[]")},
      {"entry a text", member("\"x\":\"y\"")},
      {"entry null", member("\"x\":null")},
      {"entry a number", member("\"x\":1")},
      {"entry false", member("\"x\":false")},
      {"metadata twice",
       [](D& d, T&) {
         d.members = {"\"__metadata__\":{}", "\"__metadata__\":{}"};
       }},
      {"metadata key twice", [](D& d, T&) { d.members = {"\"__metadata__\":{\"a\":\"b\",\"a\":\"b\"}"}; }},
      {"metadata with a number", [](D& d, T&) { d.members = {"\"__metadata__\":{\"a\":1}"}; }},
      {"metadata with an object", [](D& d, T&) { d.members = {"\"__metadata__\":{\"a\":{}}"}; }},
      {"metadata with a list", [](D& d, T&) { d.members = {"\"__metadata__\":{\"a\":[]}"}; }},
      {"metadata null", [](D& d, T&) { d.members = {"\"__metadata__\":null"}; }},
      {"metadata a text", [](D& d, T&) { d.members = {"\"__metadata__\":\"x\""}; }},
      {"objects 100,000 deep",
       [](D& d, T&) {
         std::string deep;
         for (int i = 0; i < 100'000; ++i) deep += "{\"a\":";
         d.members.push_back("\"x\":" + deep);
       }},
      {"bad UTF-8 in a name", name("\"a\xc3(\"")},
      {"lone surrogate in a name", name("\"\\ud800\"")},
      {"control character in a name", name("\"a\nb\"")},
      {"name of 5000 bytes", name(fmt::format("\"{:n>5000}\"", ""))},
      {"unclosed header", [](D& d, T&) { d.after = ""; }},
      {"closed twice", [](D& d, T&) { d.after = "}}"; }},
      {"trailing comma", [](D& d, T&) { d.after = ",}"; }},
      {"comment", [](D& d, T&) { d.after = "/* */}"; }},
      {"single quotes", name("'a'")},
      {"name without quotes", name("a")},
      {"NaN", [](D&, T& t) { t.more = ",\"shape\":NaN"; }},
      {"a list for a header",
       [](D& d, T&) {
         d.before = "[";
         d.after = "]";
       }},
  };
}

TEST(Safetensors, every_kind_of_corruption_is_refused) {
  std::map<std::string, Corruption> kinds;
  for (const auto& part :
       {length_corruptions(), offset_corruptions(), shape_and_dtype_corruptions(), json_corruptions()}) {
    kinds.insert(part.begin(), part.end());
  }
  EXPECT_GE(kinds.size(), 40u);
  for (const auto& [kind, corrupt] : kinds) {
    // The bombs are the same whatever the seed.
    const int seeds = kind.find("deep") == std::string::npos ? kSeeds : 2;
    for (int seed = 0; seed < seeds; ++seed) {
      std::mt19937 rng(static_cast<uint32_t>(seed));
      Draft draft = draw(rng);
      ASSERT_EQ(error_of([&] { parse(draft.file()); }), "") << "seed " << seed;
      corrupt(draft, draft.tensors[rng() % draft.tensors.size()]);
      EXPECT_NE(error_of([&] { parse(draft.file()); }), "") << kind << ", seed " << seed;
    }
  }
  RecordProperty("kinds", static_cast<int>(kinds.size()));
}

TEST(Safetensors, a_file_cut_anywhere_is_refused) {
  std::mt19937 rng(7);
  const std::string file = draw(rng).file();
  for (size_t size = 0; size < file.size(); ++size) {
    // A copy of exactly this size, so that a sanitizer sees a read beyond it.
    const std::vector<char> cut(file.begin(), file.begin() + static_cast<std::ptrdiff_t>(size));
    EXPECT_NE(error_of([&] { parse({cut.data(), cut.size()}); }), "") << size;
  }
  EXPECT_EQ(error_of([&] { parse(file); }), "");
}

TEST(Safetensors, errors_name_the_tensor_and_the_numbers) {
  const auto error = [](std::string header, std::string data) {
    return error_of([&] { parse(with_length(header, data)); });
  };
  EXPECT_EQ(error(R"({"a.w":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", "1234"),
            "f: tensor \"a.w\": shape [2] of F32 takes 8 bytes, but data_offsets 0 to 4 hold 4");
  EXPECT_EQ(
      error(
          R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}})",
          "123"),
      "f: tensor \"b\" begins at 2, wanted 1: the tensors leave a gap");
  EXPECT_EQ(
      error(
          R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
          "12"),
      "f: the key \"a\" is there twice");
  EXPECT_EQ(error(R"({"a":tru})", ""), "f: the header is not valid JSON (syntax error at byte 13)");
  EXPECT_EQ(error_of([] { parse("PK\3\4 a zip file, not this"); }),
            "f: the header has 8800140462016121680 bytes, wanted at most 100000000: not a safetensors file");
}

TEST(Safetensors, what_the_format_allows_is_read) {
  const std::string file = with_length(
      R"({"b":{"data_offsets":[4,4],"shape":[0,3],"dtype":"F64"}, "a":{"dtype":"F32","shape":[],"data_offsets":[0,4]},)"
      R"("half":{"dtype":"F4","shape":[2,2],"data_offsets":[4,6]},"__metadata__":{"format":"pt","n":"é"}}    )",
      std::string("\0\0\x80\x3f", 4) + "12");
  const SafetensorsHeader header = parse(file);
  ASSERT_EQ(header.tensors.size(), 3u);
  EXPECT_EQ(header.tensors[0].name, "a");
  EXPECT_EQ(header.tensors[0].num_elements(), 1);
  EXPECT_EQ(header.tensors[1].shape, (std::vector<int64_t>{0, 3}));
  EXPECT_EQ(header.tensors[2].dtype, StoredDType::kF4);
  EXPECT_EQ(header.metadata[1].second, "é");
  float value = 0;
  read_as_f32(header.tensors[0], {&value, 1});
  EXPECT_EQ(value, 1.0f);
  EXPECT_TRUE(parse(with_length("{}", "")).tensors.empty());
}

TEST(Safetensors, numbers_of_each_format_become_floats_wherever_they_lie) {
  std::string data = "?";  // one byte in front: nothing is aligned
  std::vector<float> wanted;
  for (int i = 0; i < 37; ++i) wanted.push_back(static_cast<float>(i - 18) * 0.25f);
  const auto put = [&](auto bits) { data.append(reinterpret_cast<const char*>(&bits), sizeof bits); };
  for (const float v : wanted) put(v);
  for (const float v : wanted) put(f32_to_bf16(v));
  for (const float v : wanted) {  // exact halves of small size
    uint16_t bits = 0;
    for (uint32_t b = 0; b < 0x10000; ++b) {
      if (f16_to_f32(static_cast<uint16_t>(b)) == v) bits = static_cast<uint16_t>(b);
    }
    put(bits);
  }
  const std::string file = with_length(
      R"({"pad":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"f32":{"dtype":"F32","shape":[37],"data_offsets":[1,149]},)"
      R"("bf16":{"dtype":"BF16","shape":[37],"data_offsets":[149,223]},"f16":{"dtype":"F16","shape":[37],"data_offsets":[223,297]}})",
      data);
  const SafetensorsHeader header = parse(file);
  for (size_t t = 1; t < 4; ++t) {
    std::vector<float> all(37), part(5);
    read_as_f32(header.tensors[t], all);
    EXPECT_EQ(all, wanted) << header.tensors[t].name;
    read_as_f32(header.tensors[t], part, 11);
    EXPECT_EQ(part, std::vector<float>(wanted.begin() + 11, wanted.begin() + 16)) << header.tensors[t].name;
  }
}

TEST(Safetensors, a_convolution_with_channels_last_is_read_as_channels_first) {
  constexpr int64_t kD = 4, kC = 3, kP = 5;
  TensorInfo tensor;
  tensor.shape = {kD, kC, kP, kP};
  tensor.channels_last = true;
  std::vector<float> stored(static_cast<size_t>(kD * kC * kP * kP)), read(stored.size()), wanted(stored.size());
  for (int64_t d = 0; d < kD; ++d) {
    for (int64_t c = 0; c < kC; ++c) {
      for (int64_t y = 0; y < kP; ++y) {
        for (int64_t x = 0; x < kP; ++x) {
          const auto value = static_cast<float>(((d * 10 + c) * 10 + y) * 10 + x);
          stored[static_cast<size_t>(((d * kP + y) * kP + x) * kC + c)] = value;
          wanted[static_cast<size_t>(((d * kC + c) * kP + y) * kP + x)] = value;
        }
      }
    }
  }
  tensor.bytes = std::as_bytes(std::span(stored));
  read_as_f32(tensor, read);
  EXPECT_EQ(read, wanted);
  std::vector<float> part(60);
  read_as_f32(tensor, part, 77);
  EXPECT_EQ(part, std::vector<float>(wanted.begin() + 77, wanted.begin() + 137));
}

}  // namespace
}  // namespace idefics
