// Steps of the model over mixed batches, and every input that it refuses.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "base/files.h"
#include "idefics/error.h"
#include "idefics/model.h"

namespace idefics {
namespace {

const std::filesystem::path kFolder = std::filesystem::path(IDEFICS_GOLDENS) / "checkpoints/c_smolvlm";
const std::filesystem::path kPictures = std::filesystem::path(IDEFICS_GOLDENS) / "stages/c_smolvlm";
constexpr int32_t kSkipped = std::numeric_limits<int32_t>::min();

Idefics3Model load(DType dtype, ReturnLogits mode = ReturnLogits::kLastToken, const ModelOptions& options = {}) {
  return Idefics3Model::load(kFolder, mode, options, dtype);
}

const Idefics3Tokenizer& tokenizer() {
  static const Idefics3Tokenizer loaded = Idefics3Tokenizer::load(kFolder);
  return loaded;
}

TextAndVisionContext ask(const std::string& id, const std::string& picture, const std::string& question) {
  TextGenerationRequest request{.request_id = id};
  Message message{"user", {ContentPart::of_text(question)}};
  if (!picture.empty()) message.content.push_back(ContentPart::of_image(read_file(kPictures / picture, 1 << 24)));
  request.messages = {message};
  return tokenizer().new_context(request);
}

// Sequences with their cache; `inputs` are those of the next step.
struct Steps {
  Steps(const Idefics3Model& on, std::vector<TextAndVisionContext> all, int64_t pages = 24)
      : model(on), contexts(std::move(all)), kv(on.config().get_kv_params(), pages) {
    for (const TextAndVisionContext& context : contexts) {
      batch.push_back(&context);
      kv.claim(context);
    }
  }
  Idefics3Inputs inputs(int n = 1) {
    for (const TextAndVisionContext& context : contexts) kv.alloc(context);
    const KVCacheInputs cache = kv.runtime_inputs(batch);
    return model.prepare_initial_token_inputs({&batch, 1}, &cache, n);
  }
  ModelOutputs step(int n = 1) { return model.execute(inputs(n)); }

  const Idefics3Model& model;
  std::vector<TextAndVisionContext> contexts;
  Batch batch;
  PagedKVCacheManager kv;
};

// Rows [first, first + count) of the last dimension, as bytes.
std::string rows(const Tensor& t, int64_t first, int64_t count) {
  const auto cols = static_cast<size_t>(t.shape().back());
  const auto part = t.as<float>().subspan(static_cast<size_t>(first) * cols, static_cast<size_t>(count) * cols);
  return std::string(reinterpret_cast<const char*>(part.data()), part.size_bytes());
}
std::string all_rows(const Tensor& t) { return rows(t, 0, t.num_elements() / t.shape().back()); }

// A picture, a text that is longer than a page, a picture again, and a short text, one of them one token ahead.
std::vector<TextAndVisionContext> mixed() {
  std::string words = "one two three";
  for (int i = 0; i < 6; ++i) words += " " + words;
  std::vector<TextAndVisionContext> out = {ask("a", "picture0.png", "What is this?"),
                                           ask("b", "", words.substr(0, 150)), ask("c", "picture1.png", "And this?"),
                                           ask("d", "", "Hi")};
  return out;
}

template <typename Call>
std::string error_of(const Call& call, ErrorCode code = ErrorCode::kInvalidValue) {
  try {
    call();
  } catch (const Error& e) {
    EXPECT_EQ(code_name(e.code()), code_name(code)) << e.what();
    return e.what();
  }
  return "";
}

class EachType : public testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(Model, EachType, testing::Values(DType::kF32, DType::kBf16),
                         [](const auto& type) { return std::string(dtype_name(type.param)); });

TEST_P(EachType, the_three_modes_of_logits_agree_row_by_row) {
  const Idefics3Model last = load(GetParam()), some = load(GetParam(), ReturnLogits::kVariable),
                      all = load(GetParam(), ReturnLogits::kAll);
  Steps one(last, mixed()), two(some, mixed()), three(all, mixed());
  for (int step = 0; step < 3; ++step) {
    const int n = 3;
    const Idefics3Inputs inputs = three.inputs();
    const ModelOutputs a = one.step(), b = two.step(n), c = all.execute(inputs);
    EXPECT_EQ(a.logits.data(), a.next_token_logits->data()) << "the same tensor";
    EXPECT_FALSE(a.logit_offsets.has_value());
    EXPECT_EQ(c.logit_offsets->describe(), "uint32 [5]");
    EXPECT_EQ(b.logit_offsets->describe(), "int64 [5]");
    const auto offsets = c.logit_offsets->as<uint32_t>(), given = inputs.input_row_offsets.as<uint32_t>();
    EXPECT_TRUE(std::ranges::equal(offsets, given));
    const auto some_offsets = b.logit_offsets->as<int64_t>();
    for (int64_t i = 0; i < 4; ++i) {
      const auto end = static_cast<int64_t>(offsets[static_cast<size_t>(i) + 1]);
      const int64_t active = end - static_cast<int64_t>(offsets[static_cast<size_t>(i)]),
                    count = std::min<int64_t>(n, active);
      const std::string want = rows(c.logits, end - 1, 1);
      for (const Tensor& t : {a.logits, *b.next_token_logits, *c.next_token_logits}) EXPECT_EQ(rows(t, i, 1), want);
      EXPECT_EQ(some_offsets[static_cast<size_t>(i) + 1] - some_offsets[static_cast<size_t>(i)], count);
      EXPECT_EQ(rows(b.logits, some_offsets[static_cast<size_t>(i)], count), rows(c.logits, end - count, count));
    }
    for (Steps* run : {&one, &two, &three})
      for (TextAndVisionContext& context : run->contexts) context.update(5 + step);
  }
}

TEST_P(EachType, a_mixed_batch_gives_the_bytes_of_each_sequence_alone) {
  const Idefics3Model model = load(GetParam(), ReturnLogits::kAll, {.return_hidden_states = ReturnHiddenStates::kAll});
  const auto generate = [&](Steps& run) {
    std::vector<std::string> logits(run.contexts.size()), hidden(run.contexts.size());
    for (int step = 0; step < 3; ++step) {
      const ModelOutputs out = run.step();
      const auto offsets = out.logit_offsets->as<uint32_t>();
      for (size_t i = 0; i < run.contexts.size(); ++i) {
        logits[i] += rows(out.logits, offsets[i], offsets[i + 1] - offsets[i]);
        hidden[i] += rows(*out.hidden_states, offsets[i], offsets[i + 1] - offsets[i]);
        run.contexts[i].update(7);
      }
    }
    logits.insert(logits.end(), hidden.begin(), hidden.end());
    return logits;
  };
  Steps together(model, mixed());
  const std::vector<std::string> batch = generate(together);
  for (size_t i = 0; i < 4; ++i) {
    Steps alone(model, {mixed()[i]});
    const std::vector<std::string> single = generate(alone);
    EXPECT_EQ(single[0], batch[i]) << i;
    EXPECT_EQ(single[1], batch[4 + i]) << i;
  }
}

TEST_P(EachType, chunks_that_cut_a_picture_and_skipped_prefixes_give_the_same_bytes) {
  const Idefics3Model model = load(GetParam());
  Steps whole(model, {mixed()[0]});
  const std::string want = all_rows(whole.step().logits);
  const int start = whole.contexts[0].images[0].start_idx, S = model.config().image_seq_len();
  ASSERT_GT(S, 1);

  Steps chunked(model, {mixed()[0]});
  TextAndVisionContext& context = chunked.contexts[0];
  context.tokens.chunk(start + 1);  // one row of the first tile's features
  Idefics3Inputs inputs = chunked.inputs();
  EXPECT_EQ(inputs.pixel_values->shape()[0], 1) << "tiles of later chunks are not encoded yet";
  EXPECT_EQ(inputs.image_token_indices->as<int32_t>()[0], start);
  EXPECT_EQ(inputs.image_token_indices->as<int32_t>()[1], kSkipped);
  model.execute(inputs);
  context.update(0);
  inputs = chunked.inputs();
  EXPECT_EQ(inputs.image_token_indices->as<int32_t>()[0], kSkipped);
  EXPECT_EQ(inputs.image_token_indices->as<int32_t>()[1], 0);
  EXPECT_EQ(all_rows(model.execute(inputs).logits), want);

  // The same with the first tokens taken for a cached prefix that ends within a tile.
  context.tokens.rewind_processing(2);
  EXPECT_EQ(all_rows(chunked.step().logits), want);
}

TEST_P(EachType, a_generated_image_token_in_a_mixed_batch_is_a_token_as_any_other) {
  const Idefics3Model model = load(GetParam());
  const int32_t image_id = model.config().image_token_id;
  Steps run(model, {mixed()[3], mixed()[0]}), alone(model, {mixed()[3]});
  alone.step();
  alone.contexts[0].update(image_id);
  const std::string want = all_rows(alone.step().logits);

  run.batch = {&run.contexts[0]};
  run.kv.alloc(run.contexts[0]);
  const KVCacheInputs cache = run.kv.runtime_inputs(run.batch);
  model.execute(model.prepare_initial_token_inputs({&run.batch, 1}, &cache));
  run.contexts[0].update(image_id);
  run.batch = {&run.contexts[0], &run.contexts[1]};  // now a picture joins
  const Idefics3Inputs inputs = run.inputs();
  EXPECT_EQ(inputs.tokens.as<int64_t>()[0], image_id);
  EXPECT_EQ(inputs.image_token_indices->num_elements(),
            inputs.pixel_values->shape()[0] * model.config().image_seq_len());
  EXPECT_EQ(std::ranges::count(inputs.image_token_indices->as<int32_t>(), 0), 0);
  EXPECT_EQ(rows(model.execute(inputs).logits, 0, 1), want);
}

TEST(Model, features_with_an_index_outside_the_step_are_dropped) {
  const Idefics3Model model = load(DType::kF32, ReturnLogits::kAll);
  Steps run(model, {mixed()[0]});
  const Idefics3Inputs inputs = run.inputs();
  const auto with = [&](size_t k, int32_t index) {
    Idefics3Inputs changed = inputs;
    changed.image_token_indices =
        Tensor::of<int32_t>(inputs.image_token_indices->shape(), inputs.image_token_indices->as<int32_t>());
    changed.image_token_indices->as_mutable<int32_t>()[k] = index;
    return all_rows(model.execute(changed).logits);
  };
  const auto T = static_cast<int32_t>(inputs.tokens.num_elements());
  const std::string all = all_rows(model.execute(inputs).logits), without = with(0, kSkipped);
  EXPECT_NE(all, without);
  for (const int32_t index : {-1, -T, -T - 1, T, std::numeric_limits<int32_t>::max()})
    EXPECT_EQ(with(0, index), without) << index;

  // Of equal indices the last one counts: feature 1 lands on row `first`, and its own row keeps the embedding.
  const int32_t first = inputs.image_token_indices->as<int32_t>()[0];
  Idefics3Inputs expected = inputs;
  expected.image_token_indices =
      Tensor::of<int32_t>(inputs.image_token_indices->shape(), inputs.image_token_indices->as<int32_t>());
  expected.image_token_indices->as_mutable<int32_t>()[0] = kSkipped;
  expected.image_token_indices->as_mutable<int32_t>()[1] = first;
  EXPECT_EQ(with(1, first), all_rows(model.execute(expected).logits));
}

TEST(Model, text_alone_has_no_pixels_and_no_indices) {
  const Idefics3Model model = load(DType::kF32);
  Steps run(model, {mixed()[1]});
  Idefics3Inputs inputs = run.inputs();
  EXPECT_FALSE(inputs.has_vision_inputs());
  EXPECT_EQ(inputs.image_token_indices->describe(), "int32 [0]");
  const std::string want = all_rows(model.execute(inputs).logits);
  inputs.image_token_indices = Tensor::of<int32_t>({1}, {0});  // not read without pixel_values
  EXPECT_EQ(all_rows(model.execute(inputs).logits), want);
  inputs.image_token_indices.reset();
  EXPECT_EQ(all_rows(model.execute(inputs).logits), want);
}

TEST(Model, pixels_are_of_the_type_of_the_vision_tower_and_both_types_are_taken) {
  const Idefics3Model wide = load(DType::kF32), narrow = load(DType::kBf16);
  Steps a(wide, {mixed()[0]}), b(narrow, {mixed()[0]});
  const Idefics3Inputs from_wide = a.inputs();
  Idefics3Inputs inputs = b.inputs();
  EXPECT_EQ(from_wide.pixel_values->dtype(), TensorDType::kF32);
  EXPECT_EQ(inputs.pixel_values->dtype(), TensorDType::kBf16);
  const std::string want = all_rows(narrow.execute(inputs).logits);
  inputs.pixel_values = from_wide.pixel_values;  // rounded in the tower instead
  EXPECT_EQ(all_rows(narrow.execute(inputs).logits), want);
}

TEST(Model, hidden_states_of_every_kind_belong_together) {
  const auto run_with = [](ReturnHiddenStates kind, std::vector<int> layers, ReturnLogits mode) {
    const Idefics3Model model =
        load(DType::kF32, mode, {.return_hidden_states = kind, .hidden_state_layers = std::move(layers)});
    Steps run(model, mixed());
    return run.step();
  };
  const ModelOutputs all = run_with(ReturnHiddenStates::kAll, {}, ReturnLogits::kAll),
                     last = run_with(ReturnHiddenStates::kLast, {}, ReturnLogits::kLastToken),
                     normalized = run_with(ReturnHiddenStates::kAllNormalized, {}, ReturnLogits::kVariable),
                     every = run_with(ReturnHiddenStates::kSelectedLayers, {}, ReturnLogits::kAll),
                     some = run_with(ReturnHiddenStates::kSelectedLayers, {2, 0}, ReturnLogits::kAll),
                     none = run_with(ReturnHiddenStates::kNone, {}, ReturnLogits::kAll);
  EXPECT_FALSE(none.hidden_states.has_value());
  EXPECT_EQ(all_rows(all.logits), all_rows(none.logits)) << "a look inside changes nothing";
  EXPECT_EQ(all_rows(every.logits), all_rows(none.logits));
  const auto offsets = all.logit_offsets->as<uint32_t>();
  const int64_t T = offsets[4], E = all.hidden_states->shape()[1], layers = every.hidden_states->shape()[0] - 1;
  EXPECT_EQ(all.hidden_states->shape(), (std::vector<int64_t>{T, E}));
  EXPECT_EQ(last.hidden_states->shape(), (std::vector<int64_t>{4, E}));
  for (int64_t i = 0; i < 4; ++i)
    EXPECT_EQ(rows(*last.hidden_states, i, 1), rows(*all.hidden_states, offsets[static_cast<size_t>(i) + 1] - 1, 1));
  EXPECT_EQ(rows(*every.hidden_states, layers * T, T), all_rows(*all.hidden_states)) << "the last layer";
  EXPECT_EQ(some.hidden_states->shape(), (std::vector<int64_t>{2, T, E}));
  EXPECT_EQ(rows(*some.hidden_states, 0, T), rows(*every.hidden_states, 2 * T, T));
  EXPECT_EQ(rows(*some.hidden_states, T, T), rows(*every.hidden_states, 0, T));

  // The norm divides each row by its root mean square: two rows differ by the same factor in each column.
  const auto x = all.hidden_states->as<float>(), y = normalized.hidden_states->as<float>();
  ASSERT_EQ(x.size(), y.size());
  const auto scale = [&](int64_t row) {
    double sum = 0;
    for (int64_t j = 0; j < E; ++j) sum += std::pow(double{x[static_cast<size_t>(row * E + j)]}, 2);
    return std::sqrt(sum / static_cast<double>(E) + 1e-5);
  };
  const double first = scale(0), other = scale(T - 1);
  for (int64_t j = 0; j < E; ++j) {
    const auto a = static_cast<size_t>(j), b = static_cast<size_t>((T - 1) * E + j);
    EXPECT_NEAR(double{y[a]} * x[b] * first, double{y[b]} * x[a] * other, 1e-3);
  }
}

TEST(Model, its_parts_can_be_called_on_their_own_on_another_session) {
  const Idefics3Model model = load(DType::kF32);
  Steps run(model, mixed());
  const Idefics3Inputs inputs = run.inputs();
  const std::string want = all_rows(model.execute(inputs).logits);
  const auto [vision, language] = model.load_model(InferenceSession(1));
  EXPECT_EQ(vision.name(), "vision");
  EXPECT_EQ(language.name(), "language");
  const std::vector<Tensor> features = vision(std::span(&*inputs.pixel_values, 1));
  const int64_t M = inputs.pixel_values->shape()[0];
  EXPECT_EQ(features.at(0).shape(),
            (std::vector<int64_t>{M * model.config().image_seq_len(), model.config().text_config.hidden_size}));
  std::vector<Tensor> in = {inputs.tokens, inputs.input_row_offsets, inputs.return_n_logits, features[0],
                            *inputs.image_token_indices};
  for (const Tensor& t : inputs.kv_cache_inputs->flatten()) in.push_back(t);
  const std::vector<Tensor> out = language(in);
  EXPECT_EQ(out.size(), 1u);
  EXPECT_EQ(all_rows(out[0]), want);
  in.pop_back();
  EXPECT_NE(error_of([&] { language(in); }).find("language model: 10 inputs, wanted 11"), std::string::npos);
  EXPECT_NE(error_of([&] { vision(in); }).find("vision model: 10 inputs, wanted 1"), std::string::npos);
}

TEST(Model, next_token_inputs_follow_from_those_before) {
  const Idefics3Model model = load(DType::kF32);
  Steps one(model, mixed()), two(model, mixed());
  for (const auto& context : two.contexts) two.kv.alloc(context, 4);
  Idefics3Inputs inputs = two.inputs();
  for (int step = 0; step < 4; ++step) {
    EXPECT_EQ(all_rows(model.execute(inputs).logits), all_rows(one.step().logits)) << step;
    const std::vector<int64_t> next = {3, 4, 5, 6};
    for (size_t i = 0; i < 4; ++i) one.contexts[i].update(static_cast<int32_t>(next[i]));
    inputs = model.prepare_next_token_inputs(Tensor::of<int64_t>({4}, std::span<const int64_t>(next)), inputs);
    EXPECT_FALSE(inputs.has_vision_inputs());
    EXPECT_EQ(inputs.kv_cache_inputs->max_prompt_length.as<uint32_t>()[0], 1u);
  }
  EXPECT_NE(error_of([&] { model.prepare_next_token_inputs(Tensor::of<int64_t>({1}, {3}), inputs); }), "");
}

TEST(Model, preparing_refuses_what_does_not_fit) {
  const Idefics3Model model = load(DType::kF32);
  Steps run(model, {mixed()[0]});
  const std::vector<Batch> two = {run.batch, run.batch};
  EXPECT_EQ(error_of([&] { model.prepare_initial_token_inputs(two); }),
            "replica_batches: 2 batches, wanted exactly one");
  EXPECT_EQ(error_of([&] { model.prepare_initial_token_inputs({}); }),
            "replica_batches: 0 batches, wanted exactly one");
  const Batch empty;
  EXPECT_EQ(error_of([&] { model.prepare_initial_token_inputs({&empty, 1}); }), "replica_batches: the batch is empty");
  EXPECT_EQ(error_of([&] {
              model.prepare_initial_token_inputs({&run.batch, 1}, nullptr, 0);
            }),
            "return_n_logits is 0, wanted 1 or more");
  TextAndVisionContext& context = run.contexts[0];
  context.images[0].end_idx -= 1;
  EXPECT_NE(error_of([&] {
              model.prepare_initial_token_inputs({&run.batch, 1});
            }).find("an image has 3 tokens, wanted 4"),
            std::string::npos);
  context.images[0].end_idx += 1;
  context.images[0].pixel_values = Tensor::zeros(TensorDType::kF32, {3, 2, 2});
  EXPECT_NE(error_of([&] {
              model.prepare_initial_token_inputs({&run.batch, 1});
            }).find("ImageMetadata::pixel_values is float32 [3, 2, 2], wanted float32 [3, "),
            std::string::npos);
  context.tokens = TokenBuffer();
  EXPECT_NE(error_of([&] {
              model.prepare_initial_token_inputs({&run.batch, 1});
            }).find("it has no active tokens"),
            std::string::npos);
}

TEST(Model, a_refused_step_names_the_input_and_leaves_the_cache_alone) {
  const Idefics3Model model = load(DType::kF32, ReturnLogits::kVariable);
  Steps run(model, {mixed()[0], mixed()[3]});
  const Idefics3Inputs good = run.inputs();
  const auto problem = [&](const auto& change, ErrorCode code = ErrorCode::kInvalidValue) {
    Idefics3Inputs bad = good;
    change(bad);
    return error_of([&] { model.execute(bad); }, code);
  };
  const auto expect = [&](const std::string& part, const auto& change) {
    const std::string message = problem(change);
    EXPECT_NE(message.find(part), std::string::npos) << "wanted: " << part << "\ngot: " << message;
  };
  const auto T = static_cast<uint32_t>(good.tokens.num_elements());
  const uint32_t middle = good.input_row_offsets.as<uint32_t>()[1];

  expect("Idefics3 requires KV cache inputs", [](auto& in) { in.kv_cache_inputs.reset(); });
  expect("Vision embedding shape mismatch: " + std::to_string(good.image_token_indices->num_elements()) +
             " embeddings but 3 indices.",
         [](auto& in) {
           in.image_token_indices = Tensor::of<int32_t>({3}, {0, 1, 2});
         });
  expect("image_token_indices: missing", [](auto& in) { in.image_token_indices.reset(); });
  expect("lora_ids", [](auto& in) { in.lora_ids = Tensor(); });
  expect("lora_ids", [](auto& in) { in.lora_ranks = Tensor(); });
  expect("hidden_states", [](auto& in) { in.hidden_states = Tensor(); });
  expect("tokens is int32 [2], wanted int64 [any]", [](auto& in) { in.tokens = Tensor::of<int32_t>({2}, {1, 2}); });
  expect("tokens: there are 0", [](auto& in) { in.tokens = Tensor::zeros(TensorDType::kI64, {0}); });
  for (const int64_t id :
       {int64_t{-1}, int64_t{model.config().text_config.vocab_size}, std::numeric_limits<int64_t>::max()}) {
    expect("tokens[1] is " + std::to_string(id) + ", wanted 0 to ", [&](auto& in) {
      in.tokens = Tensor::of<int64_t>({T}, in.tokens.template as<int64_t>());
      in.tokens.template as_mutable<int64_t>()[1] = id;
    });
  }
  for (const std::vector<uint32_t>& offsets :
       std::vector<std::vector<uint32_t>>{{1, middle, T}, {0, middle, T - 1}, {0, middle, T + 1}, {}, {0}}) {
    expect("input_row_offsets: wanted 0 first", [&](auto& in) {
      in.input_row_offsets = Tensor::of<uint32_t>({std::ssize(offsets)}, std::span<const uint32_t>(offsets));
    });
  }
  for (const uint32_t m : {0u, T, T + 1, std::numeric_limits<uint32_t>::max()}) {
    expect("wanted at least one active token", [&](auto& in) {
      in.input_row_offsets = Tensor::of<uint32_t>({3}, {0, m, T});
    });
  }
  expect("return_n_logits is 0", [](auto& in) { in.return_n_logits = Tensor::of<int64_t>({1}, {0}); });
  expect("return_n_logits is int64 [2], wanted int64 [1]", [](auto& in) {
    in.return_n_logits = Tensor::of<int64_t>({2}, {1, 1});
  });
  expect("pixel_values is float32 [3, 2], wanted float32 [any, 3, ", [](auto& in) {
    in.pixel_values = Tensor::zeros(TensorDType::kF32, {3, 2});
  });
  expect("pixel_values is uint8",
         [](auto& in) { in.pixel_values = Tensor::zeros(TensorDType::kU8, in.pixel_values->shape()); });
  expect("kv_blocks is float32 [1], wanted float32 [any, ",
         [](auto& in) { in.kv_cache_inputs->kv_blocks = Tensor::zeros(TensorDType::kF32, {1}); });
  expect("cache_lengths is uint32 [1], wanted uint32 [2]",
         [](auto& in) { in.kv_cache_inputs->cache_lengths = Tensor::of<uint32_t>({1}, {0}); });
  expect("lookup_table is uint32 [4], wanted uint32 [2, any]",
         [](auto& in) { in.kv_cache_inputs->lookup_table = Tensor::zeros(TensorDType::kU32, {4}); });
  expect("lookup_table: sequence 0 has 0 pages, wanted ", [](auto& in) {
    in.kv_cache_inputs->lookup_table = Tensor::zeros(TensorDType::kU32, {2, 0});
  });
  expect("is page 4294967295, wanted 0 to 23", [](auto& in) {
    Tensor table = Tensor::of<uint32_t>(in.kv_cache_inputs->lookup_table.shape(),
                                        in.kv_cache_inputs->lookup_table.template as<uint32_t>());
    table.as_mutable<uint32_t>()[0] = 4294967295u;
    in.kv_cache_inputs->lookup_table = table;
  });
  expect("which is in the table more than once", [](auto& in) {
    in.kv_cache_inputs->lookup_table = Tensor::zeros(TensorDType::kU32, in.kv_cache_inputs->lookup_table.shape());
  });
  EXPECT_NE(problem(
                [](auto& in) {
                  in.kv_cache_inputs->cache_lengths = Tensor::of<uint32_t>({2}, {4294967295u, 0});
                },
                ErrorCode::kContextLengthExceeded)
                .find("exceed the context of"),
            std::string::npos);
  for (const float x : good.kv_cache_inputs->kv_blocks.as<float>()) ASSERT_EQ(x, 0) << "no step has run";
  EXPECT_EQ(problem([](auto&) {}), "");
}

TEST(Model, n_beyond_the_active_tokens_means_all_of_them) {
  const Idefics3Model model = load(DType::kF32, ReturnLogits::kVariable);
  Steps run(model, {mixed()[0], mixed()[3]});
  Idefics3Inputs inputs = run.inputs(1 << 30);
  const ModelOutputs out = model.execute(inputs);
  for (size_t i = 0; i < 3; ++i)
    EXPECT_EQ(out.logit_offsets->as<int64_t>()[i], static_cast<int64_t>(inputs.input_row_offsets.as<uint32_t>()[i]));
  inputs.return_n_logits = Tensor::of<int64_t>({1}, {std::numeric_limits<int64_t>::max()});
  EXPECT_EQ(all_rows(model.execute(inputs).logits), all_rows(out.logits));
}

TEST(Model, inputs_of_any_size_are_refused_or_computed) {
  const Idefics3Model model = load(DType::kF32, ReturnLogits::kAll);
  Steps run(model, {mixed()[0], mixed()[3]});
  const Idefics3Inputs good = run.inputs();
  std::vector<Tensor> in = {good.tokens, good.input_row_offsets, good.return_n_logits,
                            model.vision_model()(std::span(&*good.pixel_values, 1)).front(), *good.image_token_indices};
  for (const Tensor& t : good.kv_cache_inputs->flatten()) in.push_back(t);
  std::mt19937 random(1);
  int refused = 0, computed = 0;
  for (int i = 0; i < 300; ++i) {
    std::vector<Tensor> bad = in;
    Tensor& t = bad[random() % bad.size()];
    if (random() % 3 == 0) {  // another shape or type
      std::vector<int64_t> shape = t.shape();
      if (shape.empty() || random() % 4 == 0) shape.push_back(static_cast<int64_t>(random() % 3));
      shape[random() % shape.size()] = static_cast<int64_t>(random() % 5);
      t = Tensor::zeros(random() % 2 == 0 ? t.dtype() : TensorDType::kU8, shape);
    } else if (t.num_bytes() > 0) {  // other values
      Tensor copy = Tensor::zeros(t.dtype(), t.shape());
      std::memcpy(copy.data(), t.data(), t.num_bytes());
      auto* bytes = static_cast<unsigned char*>(copy.data());
      for (unsigned k = 0; k <= random() % 3; ++k)
        bytes[random() % copy.num_bytes()] = static_cast<unsigned char>(random());
      t = copy;
    }
    try {
      model.language_model()(bad);
      ++computed;
    } catch (const Error&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, 50);
  EXPECT_GT(computed, 20);
}

TEST(Model, loading_refuses_what_it_cannot_run) {
  PipelineConfig pipeline;
  const auto problem = [&](const std::filesystem::path& weights, const WeightsAdapter& adapter = nullptr,
                           const ModelOptions& options = {}) {
    return error_of(
        [&] {
          Idefics3Model::load(pipeline, InferenceSession(1), pipeline.model.devices, pipeline.model.kv_cache, weights,
                              adapter, ReturnLogits::kAll, options);
        },
        pipeline.model.huggingface_config && (adapter || weights != kFolder) ? ErrorCode::kBadModel
                                                                             : ErrorCode::kInvalidValue);
  };
  EXPECT_NE(problem(kFolder).find("huggingface_config is missing"), std::string::npos);
  pipeline.model.huggingface_config = HuggingFaceConfig::load(kFolder);
  EXPECT_NE(problem(kPictures).find("has neither model.safetensors nor"), std::string::npos);
  EXPECT_NE(problem(kFolder, [](std::string_view) { return "other"; }), "");
  EXPECT_EQ(problem(kFolder, [](std::string_view name) { return std::string(name); }), "");
  pipeline.model.kv_cache.page_size = 96;
  EXPECT_EQ(problem(kFolder), "kv_cache_config: page_size is 96, wanted a multiple of 64");
  pipeline.model.kv_cache.page_size = 128;
  pipeline.model.kv_cache.dtype = DType::kQ8;  // keys and values need not be as the model is
  EXPECT_EQ(problem(kFolder), "");
  pipeline.model.kv_cache.dtype.reset();
  pipeline.model.devices = {{"gpu", 0}};
  EXPECT_NE(problem(kFolder).find("devices"), std::string::npos);
  pipeline.model.devices = {DeviceRef{}};
  EXPECT_NE(problem(kFolder, nullptr,
                    {.return_hidden_states = ReturnHiddenStates::kSelectedLayers, .hidden_state_layers = {99}})
                .find("hidden_state_layers: 99, wanted 0 to "),
            std::string::npos);
  EXPECT_NE(problem(kFolder, nullptr, {.hidden_state_layers = {1}}), "");
  EXPECT_EQ(error_of([] { InferenceSession(-1); }), "num_threads is -1, wanted 0 to 1024");
  pipeline.model.max_length = 0;
  EXPECT_NE(error_of([&] { Idefics3Model::calculate_max_seq_len(pipeline, *pipeline.model.huggingface_config); }), "");
}

}  // namespace
}  // namespace idefics
