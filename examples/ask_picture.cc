// A picture and a question in, the answer out.
//
//   ask_picture models/tiny-cards models/tiny-cards/samples/01.png "What colour is the circle?"
#include <idefics/engine.h>

#include "common.h"

using namespace idefics;

int main(int argc, char** argv) {
  if (argc != 4) {
    std::cerr << "usage: ask_picture MODEL_FOLDER PICTURE QUESTION\n";
    return 2;
  }
  return run_example("ask_picture", [&] {
    Engine engine = Engine::load(argv[1]);
    Request request;
    request.messages = {{"user", {ContentPart::of_image(read_picture(argv[2])), ContentPart::of_text(argv[3])}}};
    request.sampling = engine.default_sampling();

    // The text is printed while it is made; the answer that generate() returns holds all of it.
    engine.generate(request, {.text = [](std::string_view delta) { std::cout << delta << std::flush; }});
    std::cout << '\n';
  });
}
