// Features of a picture and an instruction, as the head of a robot's policy reads them: the hidden states of chosen
// layers at the last token, without any text generated.
//
//   hidden_states models/tiny-cards models/tiny-cards/samples/01.png "Pick up the circle."
#include <idefics/model.h>

#include <cmath>
#include <cstdio>

#include "common.h"

using namespace idefics;

int main(int argc, char** argv) {
  if (argc != 4) {
    std::cerr << "usage: hidden_states MODEL_FOLDER PICTURE INSTRUCTION\n";
    return 2;
  }
  return run_example("hidden_states", [&] {
    const Idefics3Tokenizer tokenizer = Idefics3Tokenizer::load(argv[1]);
    TextGenerationRequest request;
    request.messages = {{"user", {ContentPart::of_image(read_picture(argv[2])), ContentPart::of_text(argv[3])}}};
    const TextAndVisionContext context = tokenizer.new_context(request);

    // The middle layer and the last one.
    const int L = Idefics3Config::get_num_layers(HuggingFaceConfig::load(argv[1]));
    ModelOptions options;
    options.return_hidden_states = ReturnHiddenStates::kSelectedLayers;
    options.hidden_state_layers = {L / 2, L};
    const Idefics3Model model = Idefics3Model::load(argv[1], ReturnLogits::kLastToken, options);

    PagedKVCacheManager kv(model.config().get_kv_params(), context.tokens.size() / 128 + 1);
    kv.claim(context);
    kv.alloc(context);
    const Batch batch = {&context};
    const KVCacheInputs cache = kv.runtime_inputs(batch);
    const ModelOutputs outputs = model.execute(model.prepare_initial_token_inputs({&batch, 1}, &cache));

    const Tensor& states = *outputs.hidden_states;  // [2, T, E]
    const auto T = static_cast<size_t>(states.shape()[1]), E = static_cast<size_t>(states.shape()[2]);
    for (size_t i = 0; i < 2; ++i) {
      const std::span<const float> feature = states.as<float>().subspan((i * T + T - 1) * E, E);
      double squares = 0;
      for (const float x : feature) squares += double{x} * x;
      std::printf("layer %d: %zu features of %zu tokens, norm %.3f, first %.4f %.4f %.4f\n",
                  options.hidden_state_layers[i], E, T, std::sqrt(squares), static_cast<double>(feature[0]),
                  static_cast<double>(feature[1]), static_cast<double>(feature[2]));
    }
  });
}
