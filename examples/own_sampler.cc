// A loop of one's own over Idefics3Model: the program sees the logits of every step and chooses each token itself. Here
// it takes the likeliest token, and counts how sure the model was.
//
//   own_sampler models/tiny-cards models/tiny-cards/samples/01.png "What colour is the circle?"
#include <idefics/model.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "common.h"

using namespace idefics;

struct Choice {
  int32_t id;
  double probability;
};

Choice choose(std::span<const float> logits) {
  const auto best = std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float x : logits) sum += std::exp(double{x} - *best);
  return {static_cast<int32_t>(best - logits.begin()), 1 / sum};
}

int main(int argc, char** argv) {
  if (argc != 4) {
    std::cerr << "usage: own_sampler MODEL_FOLDER PICTURE QUESTION\n";
    return 2;
  }
  return run_example("own_sampler", [&] {
    const Idefics3Tokenizer tokenizer = Idefics3Tokenizer::load(argv[1]);
    const Idefics3Model model = Idefics3Model::load(argv[1]);
    TextGenerationRequest request;
    request.messages = {{"user", {ContentPart::of_image(read_picture(argv[2])), ContentPart::of_text(argv[3])}}};
    TextAndVisionContext context = tokenizer.new_context(request);

    PagedKVCacheManager kv(model.config().get_kv_params(), (context.max_length + 127) / 128);
    kv.claim(context);
    const Batch batch = {&context};
    double certainty = 1;
    while (context.tokens.size() < context.max_length) {
      kv.alloc(context);
      const KVCacheInputs cache = kv.runtime_inputs(batch);
      const ModelOutputs outputs = model.execute(model.prepare_initial_token_inputs({&batch, 1}, &cache));
      const Choice choice = choose(outputs.logits.as<float>());
      certainty = std::min(certainty, choice.probability);
      if (std::ranges::binary_search(context.eos_token_ids, choice.id)) break;
      context.update(choice.id);
    }
    std::cout << tokenizer.decode(context.tokens.generated()) << '\n';
    std::fprintf(stderr, "least certain token: %.3f\n", certainty);
  });
}
