#include "cli/program.h"

#include <exception>
#include <new>

#include "cli/interrupt.h"
#include "cli/terminal.h"
#include "cli/verbs.h"
#include "idefics/error.h"

namespace idefics::cli {

void add_all_verbs(CommandLine& line) {
  add_generate(line);
  add_chat(line);
  add_serve(line);
  add_show(line);
  add_doctor(line);
  add_bench(line);
  add_bench_serve(line);
  add_tiles(line);
  add_render(line);
  add_tokenize(line);
  add_detokenize(line);
  add_completion(line);
  add_man(line);
}

int run_program(int argc, const char* const* argv) noexcept {
  try {
    install_signal_handlers();
    CommandLine line("idefics", IDEFICS_VERSION, "Ask vision-language models of the Idefics3 family about pictures.");
    add_all_verbs(line);
    return line.run(argc, argv);
  } catch (const OutputClosed&) {
    return 0;
  } catch (const Error& e) {
    print_error(e.what());
    return exit_code(e.code());
  } catch (const std::bad_alloc&) {
    print_error("out of memory; use a smaller model or picture, or lower --max-model-len");
    return exit_code(ErrorCode::kOutOfMemory);
  } catch (const std::exception& e) {
    print_error(e.what());
    return exit_code(ErrorCode::kInternal);
  }
}

}  // namespace idefics::cli
