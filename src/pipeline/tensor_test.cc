#include "idefics/tensor.h"

#include <gtest/gtest.h>

#include "idefics/error.h"
#include "pipeline/image_hash.h"

namespace idefics {
namespace {

template <typename Call>
std::string error_of(const Call& call) {
  try {
    call();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kInvalidValue);
    return e.what();
  }
  return "";
}

TEST(Tensor, owns_its_values_and_says_what_it_is) {
  Tensor t = Tensor::of<int64_t>({2, 3}, {1, 2, 3, 4, 5, 6});
  EXPECT_EQ(t.describe(), "int64 [2, 3]");
  EXPECT_EQ(t.num_elements(), 6);
  EXPECT_EQ(t.num_bytes(), 48u);
  EXPECT_EQ(t.as<int64_t>()[4], 5);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(t.data()) % 64, 0u);
  EXPECT_EQ(Tensor().describe(), "float32 [0]");
  EXPECT_EQ(Tensor::zeros(TensorDType::kU8, {}).num_elements(), 1) << "a scalar";
}

TEST(Tensor, copies_share_their_bytes) {
  Tensor a = Tensor::zeros(TensorDType::kF32, {2});
  const Tensor b = a;
  a.as_mutable<float>()[1] = 7;
  EXPECT_EQ(b.as<float>()[1], 7);
}

TEST(Tensor, a_borrowed_one_keeps_its_keeper) {
  auto values = std::make_shared<std::vector<float>>(std::vector<float>{1, 2});
  const std::weak_ptr<std::vector<float>> seen = values;
  Tensor t = Tensor::borrow(TensorDType::kF32, {2}, values->data(), values);
  EXPECT_EQ(t.data(), values->data());
  values.reset();
  EXPECT_EQ(t.as<float>()[1], 2);
  t = Tensor();
  EXPECT_TRUE(seen.expired());
}

TEST(Tensor, wrong_uses_are_refused) {
  const Tensor t = Tensor::of<int32_t>({2}, {1, 2});
  EXPECT_EQ(error_of([&] { t.as<float>(); }), "tensor: int32 [2] was read as float32");
  EXPECT_EQ(error_of([&] { Tensor::zeros(TensorDType::kBf16, {1}).as<uint16_t>(); }), "");
  EXPECT_EQ(error_of([&] { Tensor::zeros(TensorDType::kF16, {1}).as<uint16_t>(); }), "");
  EXPECT_EQ(error_of([] {
              Tensor::of<float>({3}, {1, 2});
            }),
            "tensor: float32 [3] has 3 elements, but 2 values were given");
  EXPECT_EQ(error_of([] { Tensor::zeros(TensorDType::kF32, {2, -1}); }), "tensor: shape [2, -1] has a negative size");
  EXPECT_EQ(error_of([] {
              Tensor::zeros(TensorDType::kI64, {int64_t{1} << 40, int64_t{1} << 40});
            }),
            "tensor: shape [1099511627776, 1099511627776] is too large");
  EXPECT_EQ(error_of([] { Tensor::borrow(TensorDType::kF32, {1}, nullptr); }), "tensor: float32 [1] borrows nothing");
  alignas(8) static const char bytes[16] = {};
  EXPECT_EQ(error_of([] { Tensor::borrow(TensorDType::kI64, {1}, bytes + 4); }),
            "tensor: int64 [1] borrows unaligned memory");
}

TEST(ImageHash, is_xxh3) {  // values of the Python package xxhash 4.1
  const std::pair<int, int64_t> wanted[] = {
      {241, 2804020534780198321},  {256, 5267355713041714669},   {257, -6029950012409117313},
      {1024, 2776903886607547816}, {1025, -7881517938299728367}, {1088, 1598933122119835515},
      {4096, 665478531896192679},  {5000, -2263451464206995508}, {1728, -2882529038352974958}};
  for (const auto& [size, hash] : wanted) {
    Tensor t = Tensor::zeros(TensorDType::kU8, {size});
    for (int i = 0; i < size; ++i)
      t.as_mutable<uint8_t>()[static_cast<size_t>(i)] = static_cast<uint8_t>(i * 7 + i / 13);
    EXPECT_EQ(hash_image(t), hash) << size;
  }
  EXPECT_EQ(hash_image(Tensor::zeros(TensorDType::kU8, {240})), std::nullopt);
}

}  // namespace
}  // namespace idefics
