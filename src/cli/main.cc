#include "cli/program.h"

int main(int argc, char** argv) { return idefics::cli::run_program(argc, argv); }
