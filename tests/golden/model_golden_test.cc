// The model-level interface against the reference: contexts from messages, steps over ragged batches, hidden states,
// and which counts of frames and image tokens are accepted.
#include <cstdlib>

#include "golden.h"
#include "idefics/error.h"
#include "idefics/model.h"
#include "stage.h"

namespace idefics {
namespace {

using golden::compare_summary;
using golden::data;
using golden::Stage;

constexpr const char* kCheckpoints[] = {"a_llama3_rope",  "b_head_dim", "c_smolvlm",
                                        "d_null_scaling", "e_defaults", "f_granite"};

std::filesystem::path folder_of(const std::string& name) { return data("checkpoints/" + name); }

std::vector<int32_t> ids_of(const json::value& array) { return json::value_to<std::vector<int32_t>>(array); }

TextAndVisionContext context_of(const Idefics3Tokenizer& tokenizer, const std::string& name, const json::object& row) {
  const std::string case_name(row.at("case").as_string());
  TextGenerationRequest request{.request_id = case_name};
  request.options.images.split = row.at("split").as_bool();
  size_t picture = 0;
  for (const json::value& message : row.at("messages").as_array()) {
    Message out{std::string(message.at("role").as_string()), {}};
    for (const json::value& part : message.at("content").as_array()) {
      if (part.at("type") == "image") {
        const std::string file(row.at("pictures").at(picture++).as_string());
        out.content.push_back(ContentPart::of_image(read_file(data("stages/" + name + "/" + file), 1 << 24)));
      } else {
        out.content.push_back(ContentPart::of_text(std::string(part.at("text").as_string())));
      }
    }
    request.messages.push_back(std::move(out));
  }
  return tokenizer.new_context(request);
}

Stage stage_of(const Tensor& tensor, int64_t first_row, int64_t rows) {
  const int64_t cols = tensor.shape().back();
  const auto values =
      tensor.as<float>().subspan(static_cast<size_t>(first_row * cols), static_cast<size_t>(rows * cols));
  return {cols, std::vector<float>(values.begin(), values.end())};
}

int32_t best_of(const Tensor& logits, int64_t row) {
  const auto V = static_cast<size_t>(logits.shape()[1]);
  const auto values = logits.as<float>().subspan(static_cast<size_t>(row) * V, V);
  return static_cast<int32_t>(std::max_element(values.begin(), values.end()) - values.begin());
}

// Sequences of one model with their cache.
struct Sequences {
  Sequences(const Idefics3Model& model, std::vector<TextAndVisionContext> all)
      : contexts(std::move(all)), kv(model.config().get_kv_params(), 8) {
    for (const TextAndVisionContext& context : contexts) {
      batch.push_back(&context);
      kv.claim(context);
    }
  }
  Idefics3Inputs inputs(const Idefics3Model& model) {
    for (const TextAndVisionContext& context : contexts) kv.alloc(context, 25);  // the prompt and 24 tokens
    const KVCacheInputs cache = kv.runtime_inputs(batch);
    return model.prepare_initial_token_inputs({&batch, 1}, &cache);
  }
  std::vector<TextAndVisionContext> contexts;
  Batch batch;
  PagedKVCacheManager kv;
};

TEST(ModelGolden, stages_through_the_model_interface) {
  golden::Family stages("model/stages"), argmax("model/argmax"), greedy("model/greedy");
  for (const std::string name : kCheckpoints) {
    const Idefics3Tokenizer tokenizer = Idefics3Tokenizer::load(folder_of(name));
    const auto load = [&](ReturnHiddenStates hidden) {
      return Idefics3Model::load(folder_of(name), ReturnLogits::kAll, {.return_hidden_states = hidden}, DType::kF32);
    };
    const Idefics3Model model = load(ReturnHiddenStates::kSelectedLayers);
    const Idefics3Model normalized = load(ReturnHiddenStates::kAllNormalized);
    EXPECT_EQ(model.session().kernels(), std::getenv("IDEFICS_KERNELS")) << "the level that was asked for runs";
    for (const json::value& value : golden::read_lines("stages/" + name + "/cases.jsonl")) {
      const json::object& row = value.as_object();
      const std::string what = name + " " + std::string(row.at("case").as_string());
      Sequences one(model, {context_of(tokenizer, name, row)});
      const std::vector<int32_t> ids = ids_of(row.at("ids"));
      const auto T = static_cast<int64_t>(ids.size());
      ASSERT_TRUE(std::ranges::equal(one.contexts[0].tokens.all(), ids)) << what;
      Idefics3Inputs inputs = one.inputs(model);
      const auto check = [&](const std::string& stage, const Stage& ours) {
        const std::string problem = compare_summary(ours, row.at("stages").at(stage).as_object(), 1e-5);
        stages.check(problem.empty(), what + " " + stage + ": " + problem);
      };
      if (inputs.has_vision_inputs()) {
        const Tensor features = model.vision_model()(std::span(&*inputs.pixel_values, 1)).front();
        check("connector", stage_of(features, 0, features.shape()[0]));
      }
      ModelOutputs out = model.execute(inputs);
      const int64_t layers = model.config().text_config.num_hidden_layers, E = model.config().text_config.hidden_size;
      ASSERT_EQ(out.hidden_states->shape(), (std::vector<int64_t>{layers + 1, T, E}));
      check("merged", stage_of(*out.hidden_states, 0, T));
      for (int64_t i = 0; i < layers; ++i)
        check("text.layer." + std::to_string(i), stage_of(*out.hidden_states, (i + 1) * T, T));
      check("logits", stage_of(out.logits, 0, T));
      check("text.norm", stage_of(*normalized.execute(inputs).hidden_states, 0, T));
      const std::vector<int32_t> best = ids_of(row.at("argmax"));
      for (int64_t t = 0; t < T; ++t)
        argmax.check(best_of(out.logits, t) == best[static_cast<size_t>(t)], what + " position " + std::to_string(t));

      // Without contexts: each step's inputs come from those of the step before.
      int step = 0;
      for (const int32_t want : ids_of(row.at("greedy_f32").at("ids"))) {
        const int32_t id = best_of(*out.next_token_logits, 0);
        greedy.check(id == want, what + " step " + std::to_string(step++));
        inputs = model.prepare_next_token_inputs(Tensor::of<int64_t>({1}, {id}), inputs);
        out = model.execute(inputs);
      }
    }
  }
}

TEST(ModelGolden, a_ragged_batch_gives_what_the_padded_batch_of_the_reference_gives) {
  golden::Family family("model/batch");
  for (const std::string name : kCheckpoints) {
    const Idefics3Tokenizer tokenizer = Idefics3Tokenizer::load(folder_of(name));
    const Idefics3Model model = Idefics3Model::load(folder_of(name), ReturnLogits::kLastToken, {}, DType::kF32);
    const auto cases = golden::read_lines("stages/" + name + "/cases.jsonl");
    const auto rows = golden::read_lines("stages/" + name + "/batch.jsonl");
    std::vector<TextAndVisionContext> contexts;
    for (const json::value& row : rows) {
      const auto single =
          std::ranges::find_if(cases, [&](const json::value& c) { return c.at("case") == row.at("case"); });
      ASSERT_NE(single, cases.end());
      contexts.push_back(context_of(tokenizer, name, single->as_object()));
    }
    Sequences all(model, std::move(contexts));
    for (int step = 0; step < 24; ++step) {
      const ModelOutputs out = model.execute(all.inputs(model));
      for (size_t i = 0; i < rows.size(); ++i) {
        const json::object& row = rows[i].as_object();
        const std::string what = name + " " + std::string(row.at("case").as_string());
        if (step == 0) {
          const std::string problem = compare_summary(stage_of(out.logits, static_cast<int64_t>(i), 1),
                                                      row.at("last_logits").as_object(), 1e-5);
          family.check(problem.empty(), what + ": " + problem);
        }
        const int32_t id = best_of(out.logits, static_cast<int64_t>(i));
        family.check(id == row.at("greedy_f32").at("ids").at(static_cast<size_t>(step)).to_number<int>(),
                     what + " step " + std::to_string(step));
        all.contexts[i].update(id);
      }
    }
  }
}

// A frame without zeros, and one of zeros.
std::vector<float> noise(int64_t size) {
  std::vector<float> out(static_cast<size_t>(size));
  for (size_t i = 0; i < out.size(); ++i) out[i] = 0.01f + static_cast<float>(i % 101) / 101;
  return out;
}

// The frames that a row of frames.jsonl was made of, by samples.
std::vector<std::vector<std::vector<float>>> frames_named(std::string_view what, int64_t size) {
  const std::vector<float> real = noise(size), zero(static_cast<size_t>(size)), minus(static_cast<size_t>(size), -0.0f);
  std::vector<float> small = zero, subnormal = zero;
  small.back() = 1e-3f;
  subnormal.front() = 1e-42f;
  if (what == "real, zero, real") return {{real, zero, real}};
  if (what == "zero, real | real, zero") return {{zero, real}, {real, zero}};
  if (what == "minus zero") return {{minus, real}};
  if (what == "one value of 0.001") return {{small, real}};
  if (what == "one subnormal value") return {{subnormal, real}};
  if (what == "all zero") return {{zero, zero}};
  ADD_FAILURE() << "an unknown case: " << what;
  return {};
}

TEST(ModelGolden, frames_of_zeros_are_padding) {
  golden::Family family("model/frames");
  for (const json::value& row : golden::read_lines("stages/frames.jsonl")) {
    const std::string name(row.at("checkpoint").as_string());
    const HuggingFaceConfig config = HuggingFaceConfig::load(folder_of(name));
    const int64_t side = config.vision_config.image_size, size = 3 * side * side;
    const auto samples = frames_named(row.at("what").as_string(), size);
    std::vector<float> all;
    for (const auto& sample : samples)
      for (const auto& frame : sample) all.insert(all.end(), frame.begin(), frame.end());
    const auto B = static_cast<int64_t>(samples.size()), n = static_cast<int64_t>(samples.front().size());
    const Tensor padded = Tensor::of<float>({B, n, 3, side, side}, std::span<const float>(all));
    std::vector<int> counts;
    try {
      const RealFrames real = remove_padding_frames(padded, config.architecture, DType::kF32);
      counts = real.frames_per_sample;
      int sum = 0;
      for (const int count : counts) sum += count;
      EXPECT_EQ(real.pixel_values->shape(), (std::vector<int64_t>{sum, 3, side, side}));
    } catch (const Error&) {
    }
    const json::value* want = row.as_object().if_contains("frames_per_sample");
    family.check(counts == (want ? json::value_to<std::vector<int>>(*want) : std::vector<int>()), json::serialize(row));
  }
}

TEST(ModelGolden, image_tokens_and_features_must_be_as_many) {
  golden::Family family("model/merge");
  for (const json::value& row : golden::read_lines("stages/merge.jsonl")) {
    const std::string name(row.at("checkpoint").as_string());
    const Idefics3Model model = Idefics3Model::load(folder_of(name), ReturnLogits::kLastToken, {}, DType::kF32);
    const auto count = row.at("image_tokens").to_number<int64_t>(), frames = row.at("frames").to_number<int64_t>();
    ASSERT_EQ(model.config().image_seq_len(), row.at("S").to_number<int>());
    std::vector<int32_t> ids = {5}, indices;
    for (int32_t i = 0; i < count; ++i) {
      ids.push_back(model.config().image_token_id);
      indices.push_back(i + 1);
    }
    ids.push_back(6);
    TextAndVisionContext context;
    context.tokens = TokenBuffer(ids);
    Sequences one(model, {context});
    Idefics3Inputs inputs = one.inputs(model);
    const int64_t side = model.config().vision_config.image_size;
    inputs.pixel_values =
        Tensor::of<float>({frames, 3, side, side}, std::span<const float>(noise(frames * 3 * side * side)));
    inputs.image_token_indices = Tensor::of<int32_t>({count}, std::span<const int32_t>(indices));
    std::string error;
    try {
      model.execute(inputs);
    } catch (const Error& e) {
      error = e.what();
    }
    const std::string want =
        "Vision embedding shape mismatch: " + std::to_string(frames * row.at("S").to_number<int>()) +
        " embeddings but " + std::to_string(count) + " indices.";
    family.check(row.at("accepted").as_bool() ? error.empty() : error == want, json::serialize(row) + ": " + error);
  }
}

}  // namespace
}  // namespace idefics
