#include "checkpoint/checkpoint.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "base/half.h"
#include "checkpoint/test_files.h"

namespace idefics {
namespace {

namespace fs = std::filesystem;
using test_files::error_of;
using test_files::Stored;
using test_files::stored_in;
using test_files::TempFolder;
using test_files::write;

const fs::path kTied = fs::path(IDEFICS_GOLDENS) / "checkpoints/b_head_dim";        // f32, one file, no lm_head.weight
const fs::path kUntied = fs::path(IDEFICS_GOLDENS) / "checkpoints/d_null_scaling";  // f32, one file, lm_head.weight
const fs::path kSharded = fs::path(IDEFICS_GOLDENS) / "checkpoints/c_smolvlm";      // bf16, three files, biases

Idefics3Config config_of(const fs::path& folder) {
  PipelineConfig pipeline;
  pipeline.model.huggingface_config = HuggingFaceConfig::load(folder);
  return Idefics3Config::initialize(pipeline);
}

std::vector<float> values(const TensorInfo& tensor) {
  std::vector<float> out(static_cast<size_t>(tensor.num_elements()));
  read_as_f32(tensor, out);
  return out;
}

// Opens a folder that holds one file of these tensors.
Checkpoint open(const TempFolder& folder, const std::vector<Stored>& tensors) {
  write(folder.path() / "model.safetensors", test_files::safetensors(tensors));
  return Checkpoint::open(folder.path());
}

void replace_prefix(std::string& name, std::string_view prefix, std::string_view other) {
  if (name.starts_with(prefix)) name = std::string(other).append(name.substr(prefix.size()));
}

// [D, 3, p, p] to [D, p, p, 3], 4 bytes an element.
void put_channels_last(Stored& tensor) {
  const int64_t d = tensor.shape[0], c = tensor.shape[1], p = tensor.shape[2];
  std::string bytes;
  for (int64_t i = 0; i < d; ++i) {
    for (int64_t yx = 0; yx < p * p; ++yx) {
      for (int64_t k = 0; k < c; ++k)
        bytes.append(tensor.bytes, static_cast<size_t>(((i * c + k) * p * p + yx) * 4), 4);
    }
  }
  tensor.bytes = bytes;
  tensor.shape = {d, p, p, c};
}

void expect_same_values(const Checkpoint& a, const Checkpoint& b) {
  ASSERT_EQ(a.tensors().size(), b.tensors().size());
  for (const auto& [name, tensor] : a.tensors()) {
    ASSERT_NE(b.find(name), nullptr) << name;
    EXPECT_EQ(b.find(name)->shape, tensor.shape) << name;
    EXPECT_EQ(values(*b.find(name)), values(tensor)) << name;
  }
}

TEST(Checkpoint, every_naming_of_the_same_weights_gives_the_same_table) {
  const Checkpoint usual = Checkpoint::open(kUntied);
  const std::vector<Stored> stored = stored_in(kUntied / "model.safetensors");
  const auto renamed = [&](auto rename) {
    std::vector<Stored> tensors = stored;
    for (Stored& t : tensors) rename(t);
    const TempFolder folder;
    expect_same_values(usual, open(folder, tensors));
  };
  renamed([](Stored& t) { replace_prefix(t.name, "model.", ""); });
  renamed([](Stored& t) { t.name = "base_model.model." + t.name; });
  renamed([](Stored& t) {  // MLX
    if (t.name.find("patch_embedding.weight") != std::string::npos) put_channels_last(t);
    replace_prefix(t.name, "model.text_model.", "language_model.");
    replace_prefix(t.name, "model.", "");
    replace_prefix(t.name, "lm_head.", "language_model.lm_head.");
  });
}

TEST(Checkpoint, leftovers_of_training_are_skipped_and_strangers_are_listed) {
  std::vector<Stored> tensors = stored_in(kTied / "model.safetensors");
  const size_t count = tensors.size();
  tensors.push_back({"model.text_model.layers.0.self_attn.rotary_emb.inv_freq", "F32", {1}, "abcd"});
  tensors.push_back({"model.vision_model.head.attention.in_proj_weight", "F32", {1}, "abcd"});
  tensors.push_back({"model.perceiver.weight", "I64", {1}, "abcdefgh"});
  const TempFolder folder;
  const Checkpoint checkpoint = open(folder, tensors);
  EXPECT_EQ(checkpoint.tensors().size(), count + 1);
  EXPECT_EQ(checkpoint.verify(config_of(kTied)), std::vector<std::string>{"model.perceiver.weight"});
}

TEST(Checkpoint, one_tensor_under_two_names_is_refused) {
  std::vector<Stored> tensors = stored_in(kTied / "model.safetensors");
  tensors.push_back(tensors[3]);
  replace_prefix(tensors.back().name, "model.", "");
  const TempFolder folder;
  EXPECT_NE(error_of([&] { open(folder, tensors); }).find("a second time"), std::string::npos);
}

TEST(Checkpoint, each_tensor_must_be_there) {
  const Idefics3Config config = config_of(kTied);
  const std::vector<Stored> stored = stored_in(kTied / "model.safetensors");
  for (size_t i = 0; i < stored.size(); ++i) {
    std::vector<Stored> tensors = stored;
    tensors.erase(tensors.begin() + static_cast<std::ptrdiff_t>(i));
    const TempFolder folder;
    const Checkpoint checkpoint = open(folder, tensors);
    EXPECT_NE(error_of([&] { checkpoint.verify(config); }).find("tensor " + stored[i].name + " is missing"),
              std::string::npos);
  }
}

TEST(Checkpoint, each_tensor_must_have_its_shape) {
  const Idefics3Config config = config_of(kUntied);
  std::vector<Stored> tensors = stored_in(kUntied / "model.safetensors");
  for (Stored& tensor : tensors) {
    const std::vector<int64_t> shape = tensor.shape;
    tensor.shape.push_back(1);
    const TempFolder folder;
    const Checkpoint checkpoint = open(folder, tensors);
    const std::string error = error_of([&] { checkpoint.verify(config); });
    EXPECT_NE(error.find(fmt::format("tensor {}: wanted {} by config.json, found {} F32", tensor.name,
                                     describe_shape(shape), describe_shape(tensor.shape))),
              std::string::npos)
        << error;
    tensor.shape = shape;
  }
}

TEST(Checkpoint, weights_of_other_formats_are_refused) {
  const Idefics3Config config = config_of(kTied);
  std::vector<Stored> tensors = stored_in(kTied / "model.safetensors");
  for (const char* dtype : {"I32", "U32"}) {
    tensors[5].dtype = dtype;
    const TempFolder folder;
    const Checkpoint checkpoint = open(folder, tensors);
    EXPECT_NE(error_of([&] { checkpoint.verify(config); }).find(std::string("wanted F32, F16 or BF16, found ") + dtype),
              std::string::npos);
  }
}

TEST(Checkpoint, a_config_of_another_model_is_refused_at_the_first_tensor) {
  const Checkpoint checkpoint = Checkpoint::open(kTied);
  Idefics3Config config = config_of(kTied);
  config.text_config.num_hidden_layers = 1000;
  EXPECT_NE(error_of([&] { checkpoint.verify(config); }).find("model.text_model.layers.2."), std::string::npos);
  config = config_of(kTied);
  config.text_config.vocab_size += 1;
  EXPECT_NE(error_of([&] { checkpoint.verify(config); }).find("embed_tokens"), std::string::npos);
  config = config_of(kTied);
  config.text_config.attention_bias = true;
  EXPECT_NE(error_of([&] { checkpoint.verify(config); }).find("q_proj.bias is missing"), std::string::npos);
}

TEST(Checkpoint, a_head_is_tied_when_it_is_absent_or_said_so_and_equal) {
  EXPECT_TRUE(Checkpoint::open(kTied).tied_head(false));
  EXPECT_TRUE(Checkpoint::open(kTied).tied_head(true));
  EXPECT_FALSE(Checkpoint::open(kUntied).tied_head(true));  // it differs
  std::vector<Stored> tensors = stored_in(kTied / "model.safetensors");
  for (const Stored& t : tensors) {
    if (t.name != "model.text_model.embed_tokens.weight") continue;
    Stored head = t;
    head.name = "lm_head.weight";
    tensors.push_back(head);
    break;
  }
  {
    const TempFolder folder;
    const Checkpoint equal = open(folder, tensors);
    EXPECT_TRUE(equal.verify(config_of(kTied)).empty());
    EXPECT_TRUE(equal.tied_head(true));
    EXPECT_FALSE(equal.tied_head(false));
    EXPECT_TRUE(equal.state_dict().head_equals_embedding);
  }
  tensors.back().bytes.back() ^= 1;
  const TempFolder folder;
  EXPECT_FALSE(open(folder, tensors).tied_head(true));
}

// ---- NaN and infinity

std::string bits_of(const std::string& dtype, float value) {
  if (dtype == "F32") return std::string(reinterpret_cast<const char*>(&value), 4);
  uint16_t bits = f32_to_bf16(value);
  if (dtype == "F16") bits = std::isnan(value) ? 0x7e01 : static_cast<uint16_t>(value > 0 ? 0x7c00 : 0xfc00);
  return std::string(reinterpret_cast<const char*>(&bits), 2);
}

TEST(Checkpoint, a_number_that_is_not_finite_is_found_in_each_tensor_and_format) {
  ThreadPool pool(2);
  constexpr float kInf = std::numeric_limits<float>::infinity();
  const float bad[] = {std::numeric_limits<float>::quiet_NaN(), kInf, -kInf};
  std::vector<Stored> tensors = stored_in(kTied / "model.safetensors");
  size_t seed = 1;
  for (const std::string dtype : {"F32", "BF16", "F16"}) {
    const size_t size = dtype == "F32" ? 4 : 2;
    for (Stored& t : tensors) {
      t.dtype = dtype;
      int64_t count = 1;
      for (const int64_t dim : t.shape) count *= dim;
      t.bytes.assign(static_cast<size_t>(count) * size, '\x11');
    }
    const TempFolder folder;
    EXPECT_TRUE(open(folder, tensors).find_nonfinite(pool).empty());
    for (Stored& t : tensors) {
      const std::string good = t.bytes;
      seed = seed * 6364136223846793005u + 1442695040888963407u;
      const size_t at = (seed >> 33) % (t.bytes.size() / size) * size;
      t.bytes.replace(at, size, bits_of(dtype, bad[(seed >> 60) % 3]));
      EXPECT_EQ(open(folder, tensors).find_nonfinite(pool), std::vector<std::string>{t.name}) << dtype;
      t.bytes = good;
    }
  }
}

TEST(Checkpoint, the_largest_finite_numbers_are_not_refused) {
  ThreadPool pool(1);
  const float largest = std::numeric_limits<float>::max();
  const TempFolder folder;
  const Checkpoint checkpoint =
      open(folder, {{"a", "F32", {1}, std::string(reinterpret_cast<const char*>(&largest), 4)},
                    {"b", "BF16", {2}, "\x7f\x7f\x7f\xff"},
                    {"c", "F16", {2}, "\xff\x7b\xff\xfb"},
                    {"d", "I64", {1}, "\xff\xff\xff\xff\xff\xff\xff\xff"}});
  EXPECT_TRUE(checkpoint.find_nonfinite(pool).empty());
}

// ---- The index

// A folder of two shards and an index, to be spoilt.
class Sharded {
 public:
  Sharded() {
    write(path("a.safetensors"), test_files::safetensors({{"x", "U8", {1}, "1"}, {"y", "U8", {1}, "2"}}));
    write(path("b.safetensors"), test_files::safetensors({{"z", "U8", {1}, "3"}}));
    set_map({{"x", "a.safetensors"}, {"y", "a.safetensors"}, {"z", "b.safetensors"}});
  }
  fs::path path(const std::string& name) const { return folder_.path() / "model" / name; }
  const fs::path& outside() const { return folder_.path(); }
  void set_map(const json::object& map) const {
    write(path("model.safetensors.index.json"),
          json::serialize(json::object{{"metadata", {{"total_size", 3}}}, {"weight_map", map}}));
  }
  std::string error() const {
    return error_of([&] { Checkpoint::open(path("")); });
  }

 private:
  TempFolder folder_;
};

TEST(Index, the_recorded_one_opens_and_equals_its_files) {
  const Checkpoint checkpoint = Checkpoint::open(kSharded);
  EXPECT_TRUE(checkpoint.verify(config_of(kSharded)).empty());
  EXPECT_EQ(Sharded().error(), "");
}

TEST(Index, only_plain_names_of_files_in_the_folder_are_opened) {
  const json::value names[] = {"",
                               ".",
                               "..",
                               "/",
                               "../outside.safetensors",
                               "../../outside.safetensors",
                               "./a.safetensors",
                               "sub/a.safetensors",
                               "sub/../a.safetensors",
                               "a.safetensors/",
                               "/etc/passwd",
                               "/dev/zero",
                               "/dev/zero.safetensors",
                               "..\\outside.safetensors",
                               "C:\\a.safetensors",
                               "\\\\host\\share\\a.safetensors",
                               "file:///a.safetensors",
                               "~/a.safetensors",
                               "a.safetensors\n",
                               " a.safetensors",
                               json::string("a.safetensors\0", 14),
                               json::string("a\0.safetensors", 14),
                               "a.bin",
                               "pytorch_model.pt",
                               "config.json",
                               ".safetensors",
                               "..safetensors",
                               "．．／outside.safetensors",
                               json::value(std::string(300, 'n') + ".safetensors"),
                               nullptr,
                               5,
                               true,
                               json::array{"a.safetensors"},
                               json::object{{"file", "a.safetensors"}}};
  EXPECT_GE(std::size(names), 30u);
  const Sharded files;
  write(files.outside() / "outside.safetensors", test_files::safetensors({{"x", "U8", {1}, "1"}}));
  write(files.path("sub/a.safetensors"), test_files::safetensors({{"x", "U8", {1}, "1"}}));
  for (const json::value& name : names) {
    files.set_map({{"x", name}, {"y", "a.safetensors"}, {"z", "b.safetensors"}});
    EXPECT_NE(files.error().find("wanted the plain name of a .safetensors file"), std::string::npos)
        << json::serialize(name);
  }
}

TEST(Index, links_and_devices_are_refused_before_they_are_opened) {
  const auto with = [](auto make, const char* wanted) {
    const Sharded files;
    write(files.outside() / "outside.safetensors", test_files::safetensors({{"z", "U8", {1}, "3"}}));
    fs::remove(files.path("b.safetensors"));
    make(files, files.path("b.safetensors"));
    const std::string error = files.error();
    EXPECT_NE(error.find(wanted), std::string::npos) << wanted << ": " << error;
    EXPECT_NE(error.find("b.safetensors"), std::string::npos) << error;
  };
  const char* leaves = "a link that leaves the model's folder";
  const char* missing = "which is missing";
  const char* irregular = "not a regular file";
  with([](const Sharded&, const fs::path&) {}, missing);
  with([](const Sharded&, const fs::path& p) { fs::create_symlink("../outside.safetensors", p); }, leaves);
  with([](const Sharded& f, const fs::path& p) { fs::create_symlink(f.outside() / "outside.safetensors", p); }, leaves);
  with([](const Sharded&, const fs::path& p) { fs::create_symlink("/dev/zero", p); }, leaves);
  with([](const Sharded&, const fs::path& p) { fs::create_symlink("/etc/passwd", p); }, leaves);
  with([](const Sharded&, const fs::path& p) { fs::create_symlink("nothing.safetensors", p); }, missing);
  with([](const Sharded&, const fs::path& p) { fs::create_symlink("b.safetensors", p); }, missing);  // a loop
  with([](const Sharded&, const fs::path& p) { fs::create_directory(p); }, irregular);
  with([](const Sharded&, const fs::path& p) { ASSERT_EQ(::mkfifo(p.c_str(), 0600), 0); }, irregular);
  with(
      [](const Sharded& f, const fs::path& p) {  // a link to a link that leaves
        fs::create_symlink("../outside.safetensors", f.path("c.safetensors"));
        fs::create_symlink("c.safetensors", p);
      },
      leaves);
  with(
      [](const Sharded& f, const fs::path& p) {  // through a linked folder
        fs::create_directory_symlink(f.outside(), f.path("sub"));
        fs::create_symlink("sub/outside.safetensors", p);
      },
      leaves);
  with(
      [](const Sharded& f, const fs::path& p) {  // a folder whose name begins like the model's
        write(f.outside() / "model2/b.safetensors", test_files::safetensors({{"z", "U8", {1}, "3"}}));
        fs::create_symlink("../model2/b.safetensors", p);
      },
      leaves);
}

TEST(Index, a_link_within_the_folder_is_followed) {
  const Sharded files;
  fs::rename(files.path("b.safetensors"), files.path("real"));
  fs::create_symlink("real", files.path("b.safetensors"));
  EXPECT_EQ(files.error(), "");
}

TEST(Index, a_hugging_face_cache_links_to_its_own_blobs_only) {
  const TempFolder cache;
  const fs::path repo = cache.path() / "models--org--name", other = cache.path() / "models--org--other";
  const fs::path snapshot = repo / "snapshots/0123abcd";
  write(repo / "blobs/1111", test_files::safetensors({{"x", "U8", {1}, "1"}}));
  write(other / "blobs/1111", test_files::safetensors({{"x", "U8", {1}, "1"}}));
  write(snapshot / "model.safetensors.index.json", R"({"weight_map": {"x": "model-00001-of-00001.safetensors"}})");
  const fs::path shard = snapshot / "model-00001-of-00001.safetensors";
  fs::create_symlink("../../blobs/1111", shard);
  EXPECT_EQ(Checkpoint::open(snapshot).tensors().size(), 1u);
  const fs::path link = cache.path() / "link";
  fs::create_directory_symlink(snapshot, link);
  EXPECT_EQ(Checkpoint::open(link).tensors().size(), 1u);
  fs::remove(shard);
  fs::create_symlink("../../../models--org--other/blobs/1111", shard);
  EXPECT_NE(error_of([&] { Checkpoint::open(snapshot); }).find("leaves"), std::string::npos);
}

TEST(Index, a_folder_that_is_only_called_snapshots_is_no_cache) {
  const TempFolder folder;
  const fs::path model = folder.path() / "name/snapshots/model";
  write(folder.path() / "name/outside", test_files::safetensors({{"x", "U8", {1}, "1"}}));
  write(model / "model.safetensors.index.json", R"({"weight_map": {"x": "x.safetensors"}})");
  fs::create_symlink("../../outside", model / "x.safetensors");
  EXPECT_NE(error_of([&] { Checkpoint::open(model); }).find("leaves"), std::string::npos);
}

TEST(Index, it_must_agree_with_the_files) {
  const Sharded files;
  files.set_map({{"x", "a.safetensors"}, {"y", "b.safetensors"}, {"z", "b.safetensors"}});
  EXPECT_NE(files.error().find("tensor \"y\" is in a.safetensors, but the index says it is in b.safetensors"),
            std::string::npos);
  files.set_map({{"x", "a.safetensors"}, {"z", "b.safetensors"}});
  EXPECT_NE(files.error().find("tensor \"y\" is in a.safetensors, but the index says nothing of it"),
            std::string::npos);
  files.set_map({{"x", "a.safetensors"}, {"y", "a.safetensors"}, {"z", "b.safetensors"}, {"w", "b.safetensors"}});
  EXPECT_NE(files.error().find("tensor \"w\" should be in b.safetensors, but is not"), std::string::npos);
  files.set_map({{"x", "a.safetensors"}, {"y", "a.safetensors"}, {"z", "b.safetensors"}});
  write(files.path("b.safetensors"), test_files::safetensors({{"z", "U8", {1}, "3"}, {"x", "U8", {1}, "1"}}));
  EXPECT_NE(files.error().find("tensor \"x\" is in b.safetensors"), std::string::npos);
}

TEST(Index, a_shard_that_it_does_not_name_is_refused) {
  const Sharded files;
  write(files.path("adapter.safetensors"), "not looked at");
  EXPECT_EQ(files.error(), "");
  write(files.path("model-00003-of-00003.safetensors"), "");
  EXPECT_NE(files.error().find("does not name model-00003-of-00003.safetensors"), std::string::npos);
}

TEST(Index, a_file_that_is_no_index_is_refused) {
  const Sharded files;
  for (const char* text : {"", "[]", "{}", R"({"weight_map": []})", R"({"weight_map": {}})", R"({"weight_map": null})",
                           "{\"weight_map\": {\"x\":"}) {
    write(files.path("model.safetensors.index.json"), text);
    EXPECT_NE(files.error().find("model.safetensors.index.json"), std::string::npos) << text;
  }
}

TEST(Checkpoint, a_folder_without_weights_is_named) {
  const TempFolder folder;
  EXPECT_NE(error_of([&] { Checkpoint::open(folder.path()); }).find("neither model.safetensors nor"),
            std::string::npos);
  EXPECT_NE(error_of([&] { Checkpoint::open(folder.path() / "x"); }).find("no such folder"), std::string::npos);
  ASSERT_EQ(::mkfifo((folder.path() / "model.safetensors").c_str(), 0600), 0);
  EXPECT_NE(error_of([&] { Checkpoint::open(folder.path()); }).find("not a regular file"), std::string::npos);
}

TEST(Checkpoint, totals_count_parameters_and_bytes_by_format) {
  const TempFolder folder;
  const Checkpoint::Totals totals = open(folder, {{"a", "F32", {2, 3}, std::string(24, '\0')},
                                                  {"b", "BF16", {5}, std::string(10, '\0')},
                                                  {"c", "BF16", {}, "12"}})
                                        .totals();
  EXPECT_EQ(totals.tensors, 3);
  EXPECT_EQ(totals.parameters, 12);
  EXPECT_EQ(totals.bytes, (std::map<StoredDType, int64_t>{{StoredDType::kF32, 24}, {StoredDType::kBf16, 12}}));
}

}  // namespace
}  // namespace idefics
