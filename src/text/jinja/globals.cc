// The functions that a template finds under their names: range, dict, namespace, cycler, joiner, raise_exception,
// strftime_now.
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/utf8.h"
#include "text/jinja/interpreter.h"
#include "text/jinja/iterate.h"
#include "text/jinja/numbers.h"

namespace idefics::jinja {
namespace {

Value range_function(Interpreter& in, const Args& args) {
  constexpr size_t kMostItems = 100'000;  // the sandbox's own limit
  if (!args.named.empty() || args.positional.empty() || args.positional.size() > 3)
    fail("range takes one to three numbers");
  const auto number = [&](size_t i) { return need_integer(args.positional[i], "range"); };
  auto range = make_object<Range>(in.budget());
  range->start = args.positional.size() == 1 ? 0 : number(0);
  range->stop = args.positional.size() == 1 ? number(0) : number(1);
  range->step = args.positional.size() == 3 ? number(2) : 1;
  if (range->step == 0) fail("the step of a range is zero");
  const bool any = range->step > 0 ? range->start < range->stop : range->start > range->stop;
  if (any) {
    const auto start = static_cast<uint64_t>(range->start), stop = static_cast<uint64_t>(range->stop);
    const uint64_t span = range->step > 0 ? stop - start : start - stop;
    const uint64_t step =
        range->step > 0 ? static_cast<uint64_t>(range->step) : uint64_t{0} - static_cast<uint64_t>(range->step);
    range->size = (span - 1) / step + 1;
  }
  if (range->size > kMostItems) fail(fmt::format("a range of more than {} items", kMostItems));
  return Value(Kind::kRange, std::move(range));
}

// dict(mapping or pairs, **named).
std::shared_ptr<Dict> dict_from(Interpreter& in, const Args& args) {
  if (args.positional.size() > 1) fail("dict takes at most one positional argument");
  auto out = new_dict(in.budget());
  if (!args.positional.empty()) {
    const Value& from = args.positional[0];
    if (from.is(Kind::kDict)) {
      for (const auto& [key, value] : from.dict().entries) out->set(key, value);
    } else {
      for (const Value& entry : to_items(in, from)) {
        const std::vector<Value> pair = to_items(in, entry);
        if (pair.size() != 2) fail("dict needs pairs of a key and a value");
        out->set(pair[0], pair[1]);
      }
    }
  }
  for (const auto& [name, value] : args.named) out->set(name, value);
  return out;
}

Value dict_function(Interpreter& in, const Args& args) { return finish_dict(in.budget(), dict_from(in, args)); }

Value namespace_function(Interpreter& in, const Args& args) {
  const auto from = dict_from(in, args);
  auto ns = make_object<Namespace>(in.budget());
  for (const auto& [key, value] : from->entries) {
    in.budget().work(ns->attributes.size());
    need_text(key, "a name in a namespace");
    ns->set(key, value);
  }
  return in.keep(std::move(ns));
}

Value cycler_function(Interpreter& in, const Args& args) {
  if (args.positional.empty() || !args.named.empty()) fail("cycler needs something to cycle through");
  const Value items = make_list(in.budget(), args.positional);
  auto cycler = make_object<Cycler>(in.budget(), {&items});
  cycler->charge.grow_to(sizeof(Cycler) + 32 + args.positional.size() * sizeof(Value));
  cycler->items = items.items();
  return Value(Kind::kCycler, std::move(cycler));
}

Value joiner_function(Interpreter& in, const Args& args) {
  const Bound bound("joiner", args, {"sep"});
  const Value separator = bound.get(0, in.text(", "));
  auto joiner = make_object<Joiner>(in.budget(), {&separator});
  joiner->separator = separator;
  return Value(Kind::kJoiner, std::move(joiner));
}

// The message is the template's, but a part of it may come from a request: it is brought to one line of sane length.
Value raise_exception_function(Interpreter& in, const Args& args) {
  const Bound bound("raise_exception", args, {"message"}, 1);
  constexpr size_t kMostBytes = 300;
  const Value message = to_text(in.budget(), bound[0]);
  std::string line(message.text().view.substr(0, kMostBytes));
  std::replace_if(
      line.begin(), line.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }, ' ');
  line.resize(line.size() - incomplete_utf8_tail(line));
  fail("the template refuses: " + line);
}

Value strftime_now_function(Interpreter& in, const Args& args) {
  constexpr size_t kMostBytes = 1000;
  const Bound bound("strftime_now", args, {"format"}, 1);
  const Text& format = bound.text(0);
  if (format.view.size() > kMostBytes || format.view.find('\0') != std::string_view::npos)
    fail("the format of strftime_now is no date format");
  return in.text(format_time(in.now(), std::string(format.view)), format.taint.any());
}

Value lipsum_function(Interpreter&, const Args&) { fail("lipsum is not supported in chat templates"); }

constexpr std::array kFunctions = {
    FunctionEntry{"range", range_function},
    FunctionEntry{"dict", dict_function},
    FunctionEntry{"namespace", namespace_function},
    FunctionEntry{"raise_exception", raise_exception_function},
    FunctionEntry{"strftime_now", strftime_now_function},
    FunctionEntry{"cycler", cycler_function},
    FunctionEntry{"joiner", joiner_function},
    FunctionEntry{"lipsum", lipsum_function},
};

}  // namespace

const FunctionEntry* find_function(std::string_view name) {
  const auto* at = std::find_if(kFunctions.begin(), kFunctions.end(),
                                [&](const FunctionEntry& entry) { return entry.name == name; });
  return at == kFunctions.end() ? nullptr : at;
}

}  // namespace idefics::jinja
