#include <string_view>

#include "cli/program.h"
#include "decoder/worker.h"

int main(int argc, char** argv) {
  // How the server starts its decoding processes; nothing for people, who would have no descriptors to give.
  if (argc == 2 && std::string_view(argv[1]) == idefics::decoder::kWorkerVerb) return idefics::decoder::run_worker();
  return idefics::cli::run_program(argc, argv);
}
