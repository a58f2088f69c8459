// Many pictures at once: each is a request of its own, and the engine computes them together.
//
//   batch_captions models/tiny-cards models/tiny-cards/samples/*.png
#include <idefics/engine.h>

#include "common.h"

using namespace idefics;

int main(int argc, char** argv) {
  if (argc < 3) {
    std::cerr << "usage: batch_captions MODEL_FOLDER PICTURE...\n";
    return 2;
  }
  return run_example("batch_captions", [&] {
    Engine engine = Engine::load(argv[1]);
    std::vector<EventStream> streams;
    for (int i = 2; i < argc; ++i) {
      Request request;
      request.messages = {
          {"user", {ContentPart::of_image(read_picture(argv[i])), ContentPart::of_text("Describe the image.")}}};
      request.sampling = engine.default_sampling();
      streams.push_back(engine.submit(std::move(request)));
    }
    for (int i = 2; i < argc; ++i) {
      std::cout << argv[i] << ':';
      while (const std::optional<Event> event = streams[static_cast<size_t>(i) - 2].next()) {
        if (event->error) throw event->error->with_context(argv[i]);
        std::cout << event->text;
      }
      std::cout << '\n';
    }
  });
}
