// What the program writes, and where: results to standard output, everything else to standard error.
#pragma once

#include <string>
#include <string_view>

namespace idefics::cli {

// Standard output was closed by its reader (`idefics ... | head -1`): there is nobody left to work for.
struct OutputClosed {};

enum class Color { kNone, kRed, kYellow, kGreen, kDim };

// Writes to standard output. On a terminal control characters are removed, so that neither a model nor a file name can
// steer it. `color` shows on a terminal only, and not when NO_COLOR is set.
// Throws OutputClosed, or Error{kIo} when the disk is full or the like.
void print(std::string_view text, Color color = Color::kNone);
// Writes to standard error; failures are ignored. Control characters other than line ends are removed.
void print_note(std::string_view text, Color color = Color::kNone);
// "idefics: error: <message>" as one line on standard error, whatever the message holds.
void print_error(std::string_view message);

bool is_terminal(int fd);

// The text without control characters (C0 but tab and line feed, DEL, C1) and with U+FFFD for what is not UTF-8.
std::string printable(std::string_view text);
// The text on one line: control characters escaped as in C.
std::string one_line(std::string_view text);

}  // namespace idefics::cli
