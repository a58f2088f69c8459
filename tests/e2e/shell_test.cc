// The program among other programs: help, manual page, completions, pipes.
#include <gtest/gtest.h>

#include "program.h"

namespace idefics::e2e {
namespace {

const std::string kModel = tiny_cards().string();

bool has(const std::string& tool) { return run_command("command -v " + tool).exit_code == 0; }

// The ids of a text that would turn a terminal red.
std::string red_ids() {
  const std::string array = run({"tokenize", kModel, "a\x1b[31mb"}).out;
  return array.substr(1, array.size() - 3);
}

std::vector<std::string> verbs() {
  return {"generate", "chat",     "show",       "doctor",     "bench", "tiles",
          "render",   "tokenize", "detokenize", "completion", "man"};
}

TEST(Shell, version_and_help_go_to_standard_output) {
  EXPECT_TRUE(run({"--version"}).out.starts_with("idefics 0."));
  const Outcome help = run({"--help"});
  EXPECT_EQ(help.exit_code, 0);
  EXPECT_EQ(help.err, "");
  for (const std::string& verb : verbs()) EXPECT_NE(help.out.find("\n  " + verb + " "), std::string::npos) << verb;
  EXPECT_EQ(run({"-h"}).out, help.out);
}

TEST(Shell, help_of_every_verb_has_usage_and_an_example) {
  for (const std::string& verb : verbs()) {
    const Outcome help = run({verb, "--help"});
    EXPECT_EQ(help.exit_code, 0);
    EXPECT_NE(help.out.find("Usage: idefics " + verb), std::string::npos) << help.out;
    EXPECT_NE(help.out.find("Example:\n  "), std::string::npos) << help.out;
  }
  EXPECT_NE(run({"generate", "--help"}).out.find("  -p, --prompt TEXT"), std::string::npos);
}

TEST(Shell, completions_are_scripts_of_their_shells) {
  const ScratchFolder scratch;
  for (const std::string shell : {"bash", "zsh", "fish"}) {
    const Outcome script = run({"completion", shell});
    EXPECT_EQ(script.exit_code, 0);
    for (const std::string& verb : verbs()) EXPECT_NE(script.out.find(verb), std::string::npos) << shell << " " << verb;
    for (const char* option : {"max-tokens", "no-image-splitting", "jsonl"})
      EXPECT_NE(script.out.find(option), std::string::npos) << shell << " " << option;
    const std::string file = scratch.write("script." + shell, script.out).string();
    if (has(shell)) {
      EXPECT_EQ(run_command(shell + " -n " + file).exit_code, 0) << shell;
    }
  }
}

TEST(Shell, bash_completes_verbs_options_and_values) {
  const ScratchFolder scratch;
  const std::string file = scratch.write("script.bash", run({"completion", "bash"}).out).string();
  const auto complete = [&](const std::string& words, int at) {
    const std::string script = "source " + file + "; COMP_WORDS=(" + words + "); COMP_CWORD=" + std::to_string(at) +
                               "; compopt() { :; }; _idefics; echo \"${COMPREPLY[*]}\"";
    return run_command("bash -c '" + script + "'").out;
  };
  EXPECT_EQ(complete("idefics gen", 1), "generate\n");
  EXPECT_EQ(complete("idefics generate --ma", 2), "--max-tiles --max-tokens --max-model-len\n");
  EXPECT_EQ(complete("idefics generate m --dtype b", 4), "bf16\n");
  EXPECT_EQ(complete("idefics completion z", 2), "zsh\n");
  EXPECT_NE(complete("idefics bench se", 2).find("serve"), std::string::npos);
  EXPECT_EQ(complete("idefics bench serve --conc", 3), "--concurrency\n");
  EXPECT_EQ(complete("idefics bench serve --arrivals p", 4), "poisson\n");
  EXPECT_EQ(complete("idefics bench m --conc", 3), "\n");
  EXPECT_EQ(complete("idefics generate m --max-tokens \"\"", 4), "\n");
}

TEST(Shell, the_manual_page_has_its_sections_and_renders) {
  const Outcome page = run({"man"});
  EXPECT_EQ(page.exit_code, 0);
  EXPECT_TRUE(page.out.starts_with(".TH IDEFICS 1 "));
  for (const char* section : {"NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "VERBS", "ENVIRONMENT", "EXIT STATUS"})
    EXPECT_NE(page.out.find(std::string("\n.SH ") + section + "\n"), std::string::npos) << section;
  EXPECT_NE(page.out.find("\\fBIDEFICS_MAX_TOKENS\\fR"), std::string::npos);
  ASSERT_TRUE(has("groff")) << "install groff-base (tools/install_packages does)";
  const ScratchFolder scratch;
  const Outcome rendered =
      run_command("groff -man -Tutf8 -ww -z " + scratch.write("idefics.1", page.out).string() + " 2>&1");
  EXPECT_EQ(rendered.exit_code, 0);
  EXPECT_EQ(rendered.out, "") << "warnings of groff";
}

TEST(Shell, a_reader_that_goes_away_is_no_error) {
  const Outcome outcome = run_in_shell("generate " + kModel +
                                       " -p Hello --ignore-eos --max-tokens 1900 | head -c 5 >/dev/null; "
                                       "echo ${PIPESTATUS[0]}");
  EXPECT_EQ(outcome.out, "0\n");
  EXPECT_EQ(outcome.err, "");
}

TEST(Shell, on_a_terminal_control_characters_are_taken_out_and_progress_is_shown) {
  ASSERT_TRUE(has("script")) << "install bsdutils: script(1) makes the terminal of this test";
  const std::string image = (tiny_cards() / "samples/01.png").string();
  const auto on_terminal = [&](const std::string& line) {
    return run_command("script -qec '" + std::string(IDEFICS_PROGRAM) + " " + line + "' /dev/null < /dev/null").out;
  };
  const std::string answer = on_terminal("generate " + kModel + " --image " + image + " -p Hello --max-tokens 3");
  EXPECT_NE(answer.find("tile 5 of 5"), std::string::npos) << answer;
  const std::string shown = on_terminal("detokenize " + kModel + " \"[" + red_ids() + "]\"");
  EXPECT_EQ(shown, "a[31mb\r\n");
  EXPECT_EQ(run({"detokenize", kModel, "[" + red_ids() + "]"}).out, "a\x1b[31mb\n");
  EXPECT_NE(on_terminal("doctor " + kModel).find("\x1b[32mok"), std::string::npos);
  EXPECT_EQ(run_command("NO_COLOR=1 script -qec '" + std::string(IDEFICS_PROGRAM) + " doctor " + kModel +
                        "' /dev/null < /dev/null")
                .out.find('\x1b'),
            std::string::npos);
}

}  // namespace
}  // namespace idefics::e2e
