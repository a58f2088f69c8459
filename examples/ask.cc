// A picture and a question in, the answer out.
//
//   ask models/tiny-cards models/tiny-cards/samples/01.png "What colour is the circle?"
#include <idefics/engine.h>
#include <idefics/error.h>

#include <fstream>
#include <iostream>
#include <iterator>

using namespace idefics;

int main(int argc, char** argv) {
  if (argc != 4) {
    std::cerr << "usage: ask MODEL_FOLDER PICTURE QUESTION\n";
    return 2;
  }
  try {
    std::ifstream file(argv[2], std::ios::binary);
    if (!file) throw Error(ErrorCode::kIo, std::string("cannot open ") + argv[2]);
    std::string picture(std::istreambuf_iterator<char>(file), {});

    Engine engine = Engine::load(argv[1]);
    Request request;
    request.messages = {{"user", {ContentPart::of_image(std::move(picture)), ContentPart::of_text(argv[3])}}};
    request.sampling = engine.default_sampling();

    // The text is printed while it is made; the answer that generate() returns holds all of it.
    engine.generate(request, {.text = [](std::string_view delta) { std::cout << delta << std::flush; }});
    std::cout << '\n';
  } catch (const Error& error) {
    std::cerr << "ask: " << error.what() << '\n';
    return exit_code(error.code());
  }
}
