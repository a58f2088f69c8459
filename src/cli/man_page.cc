// idefics man: the manual page.
#include <fmt/format.h>

#include "cli/terminal.h"
#include "cli/verbs.h"

namespace idefics::cli {

namespace {

// Text that troff takes as it stands.
std::string escape(std::string_view text) {
  std::string out;
  if (text.starts_with('.') || text.starts_with('\'')) out += "\\&";
  for (const char c : text) out += c == '\\' ? "\\e" : c == '-' ? "\\-" : std::string(1, c);
  return out;
}

std::string option_entry(const OptionInfo& option) {
  std::string names;
  for (const std::string& name : option.names)
    names += fmt::format("{}\\fB{}\\fR", names.empty() ? "" : ", ", escape(name));
  const std::string value = option.value.empty() ? "" : fmt::format(" \\fI{}\\fR", escape(option.value));
  const std::string more = option.repeatable ? " May be repeated." : "";
  const std::string variable =
      option.variable.empty() ? "" : fmt::format(" Environment: \\fB{}\\fR.", escape(option.variable));
  return fmt::format(".TP\n{}{}\n{}.{}{}\n", names, value, escape(option.help), more, variable);
}

std::string verb_section(const CommandTree& tree, const VerbInfo& verb) {
  std::string out = fmt::format(".SS {}\n{}\n.PP\n\\fB{} {}\\fR\n", escape(verb.name), escape(verb.summary), tree.name,
                                escape(usage(verb)));
  if (!verb.details.empty()) out += fmt::format(".PP\n{}\n", escape(verb.details));
  for (const ArgumentInfo& argument : verb.arguments)
    out += fmt::format(".TP\n\\fI{}\\fR\n{}.\n", escape(argument.name), escape(argument.help));
  for (const auto& [heading, options] : by_group(verb.options)) {
    if (heading == "Help") continue;
    out += fmt::format(".PP\n{}:\n", escape(heading));
    for (const OptionInfo& option : options) out += option_entry(option);
  }
  return out + fmt::format(".PP\nExample:\n.PP\n.EX\n    {}\n.EE\n", escape(verb.example));
}

constexpr std::string_view kEnvironment =
    R"(.SH ENVIRONMENT
Every option can be set by a variable: \-\-max\-tokens by \fBIDEFICS_MAX_TOKENS\fR, and so on. The command line wins.
.TP
\fBIDEFICS_KERNELS\fR
The CPU level to compute with: ref, avx2, avx512 or amx. Default: the best that the CPU has.
.TP
\fBNO_COLOR\fR
When set, nothing is coloured.
)";

constexpr std::string_view kExitStatus =
    R"(.SH EXIT STATUS
.TP
0
All went well.
.TP
1
A fault of the program, or memory ran out.
.TP
2
The command line or the request is wrong: an unknown option, a value out of range, a damaged picture, a prompt that is
empty or too long.
.TP
4
The model folder is missing, damaged or contradictory.
.TP
5
A file could not be read or written.
.TP
130
Interrupted by Ctrl\-C.
.PP
An error is one line on standard error: what was wanted, what was found, where, and what to do.
)";

}  // namespace

std::string man_page(const CommandTree& tree) {
  std::string out = fmt::format(
      ".TH IDEFICS 1 \"\" \"{0} {1}\" \"User Commands\"\n.SH NAME\n{0} \\- {2}\n.SH SYNOPSIS\n\\fB{0}\\fR \\fIVERB\\fR "
      "...\n.SH DESCRIPTION\n{2}\nResults go to standard output; progress, on a terminal only, and errors to standard "
      "error.\n.SH OPTIONS\n",
      tree.name, escape(tree.version), escape(tree.summary));
  for (const OptionInfo& option : tree.options) out += option_entry(option);
  out += ".SH VERBS\n";
  for (const VerbInfo& verb : tree.verbs) out += verb_section(tree, verb);
  return out.append(kEnvironment).append(kExitStatus);
}

void add_man(CommandLine& line) {
  Verb& verb = line.add_verb("man", "Print the manual page.", "idefics man > idefics.1; man -l idefics.1");
  verb.action([&line] {
    print(man_page(line.tree()));
    return 0;
  });
}

}  // namespace idefics::cli
