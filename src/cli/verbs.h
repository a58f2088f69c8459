// The verbs of the program, one file each. Each function describes its verb and says what it does.
#pragma once

#include "cli/command_line.h"

namespace idefics::cli {

void add_generate(CommandLine& line);
void add_chat(CommandLine& line);
void add_serve(CommandLine& line);
void add_show(CommandLine& line);
void add_doctor(CommandLine& line);
void add_bench(CommandLine& line);
void add_bench_serve(CommandLine& line);
void add_tiles(CommandLine& line);
void add_render(CommandLine& line);
void add_tokenize(CommandLine& line);
void add_detokenize(CommandLine& line);
void add_completion(CommandLine& line);
void add_man(CommandLine& line);

// The whole command line.
void add_all_verbs(CommandLine& line);

}  // namespace idefics::cli
