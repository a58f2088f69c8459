#include "text/jinja/methods.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "base/utf8.h"
#include "text/jinja/interpreter.h"
#include "text/jinja/iterate.h"
#include "text/jinja/numbers.h"
#include "text/jinja/text_ops.h"

namespace idefics::jinja {
namespace {

// --- dicts ---

Value dict_get(Interpreter&, const Value& self, const Args& args) {
  const Bound bound("get", args, {"key", "default"}, 1);
  const Value* found = self.dict().find(bound[0]);
  return found != nullptr ? *found : bound.get(1, Value());
}

template <View::Part kPart>
Value dict_view(Interpreter& in, const Value& self, const Args& args) {
  Bound("the method", args, {});
  auto view = make_object<View>(in.budget(), {&self});
  view->part = kPart;
  view->of = self;
  return Value(Kind::kView, std::move(view));
}

// Values do not change, so a copy is the value itself.
Value copy(Interpreter&, const Value& self, const Args& args) {
  Bound("copy", args, {});
  return self;
}

// --- lists, tuples, ranges ---

Value count_item(Interpreter& in, const Value& self, const Args& args) {
  const Bound bound("count", args, {"value"}, 1);
  const auto items = iterate(in, self);
  int64_t count = 0;
  for (Value item; items->next(in, item);) count += equal(in.budget(), item, bound[0]) ? 1 : 0;
  return Value::integer(count);
}

Value index_item(Interpreter& in, const Value& self, const Args& args) {
  const Bound bound("index", args, {"value", "start", "stop"}, 1);
  const std::vector<Value> items = to_items(in, self);
  const int64_t length = static_cast<int64_t>(items.size());
  const auto clamp = [&](int64_t i) { return std::clamp<int64_t>(i < 0 ? i + length : i, 0, length); };
  const int64_t end = clamp(bound.integer(2, length));
  for (int64_t i = clamp(bound.integer(1, 0)); i < end; ++i) {
    if (equal(in.budget(), items[static_cast<size_t>(i)], bound[0])) return Value::integer(i);
  }
  fail("the value is not in the list");
}

Value is_whole_float(Interpreter&, const Value& self, const Args& args) {
  Bound("is_integer", args, {});
  return Value::boolean(std::isfinite(self.real()) && self.real() == std::trunc(self.real()));
}

// --- loop, cycler ---

Value loop_cycle(Interpreter&, const Value& self, const Args& args) {
  if (args.positional.empty()) fail("cycle needs something to cycle through");
  const auto count = static_cast<int64_t>(args.positional.size());
  return args.positional[static_cast<size_t>(((self.as<Loop>().index0 % count) + count) % count)];
}

Value loop_changed(Interpreter& in, const Value& self, const Args& args) {
  Loop& loop = self.as<Loop>();
  Value now = make_list(in.budget(), args.positional, Kind::kTuple);
  if (loop.changed.has_value() && equal(in.budget(), *loop.changed, now)) return Value::boolean(false);
  if (loop.items != nullptr) loop.changed = std::move(now);
  return Value::boolean(true);
}

Value cycler_next(Interpreter&, const Value& self, const Args& args) {
  Bound("next", args, {});
  Cycler& cycler = self.as<Cycler>();
  const Value out = cycler.items[cycler.position];
  cycler.position = (cycler.position + 1) % cycler.items.size();
  return out;
}

Value cycler_reset(Interpreter&, const Value& self, const Args& args) {
  Bound("reset", args, {});
  self.as<Cycler>().position = 0;
  return Value();
}

constexpr std::array kDictMethods = {
    MethodEntry{"get", dict_get},
    MethodEntry{"items", dict_view<View::Part::kItems>},
    MethodEntry{"keys", dict_view<View::Part::kKeys>},
    MethodEntry{"values", dict_view<View::Part::kValues>},
    MethodEntry{"copy", copy},
};
constexpr std::array kListMethods = {MethodEntry{"count", count_item}, MethodEntry{"index", index_item},
                                     MethodEntry{"copy", copy}};
constexpr std::array kTupleMethods = {MethodEntry{"count", count_item}, MethodEntry{"index", index_item}};
constexpr std::array kFloatMethods = {MethodEntry{"is_integer", is_whole_float}};
constexpr std::array kLoopMethods = {MethodEntry{"cycle", loop_cycle}, MethodEntry{"changed", loop_changed}};
constexpr std::array kCyclerMethods = {MethodEntry{"next", cycler_next}, MethodEntry{"reset", cycler_reset}};

template <typename Table>
const MethodEntry* find_in(const Table& table, std::string_view name) {
  const auto* at =
      std::find_if(table.begin(), table.end(), [&](const MethodEntry& entry) { return entry.name == name; });
  return at == table.end() ? nullptr : at;
}

// --- attributes ---

// Methods that would change a list or a dict: the sandbox hides them.
bool is_mutation(Kind kind, std::string_view name) {
  static constexpr std::array<std::string_view, 8> kList = {"append", "clear", "pop",    "reverse",
                                                            "insert", "sort",  "extend", "remove"};
  static constexpr std::array<std::string_view, 5> kDict = {"clear", "pop", "popitem", "setdefault", "update"};
  if (kind == Kind::kList) return std::find(kList.begin(), kList.end(), name) != kList.end();
  return kind == Kind::kDict && std::find(kDict.begin(), kDict.end(), name) != kDict.end();
}

std::optional<Value> loop_attribute(Interpreter& in, Loop& loop, std::string_view name) {
  const auto length = [&] { return static_cast<int64_t>(in.loop_length(loop)); };
  if (name == "index") return Value::integer(loop.index0 + 1);
  if (name == "index0") return Value::integer(loop.index0);
  if (name == "first") return Value::boolean(loop.index0 == 0);
  if (name == "last") return Value::boolean(!in.peek(loop));
  if (name == "length") return Value::integer(length());
  if (name == "revindex") return Value::integer(length() - loop.index0);
  if (name == "revindex0") return Value::integer(length() - loop.index0 - 1);
  if (name == "depth") return Value::integer(loop.depth0 + 1);
  if (name == "depth0") return Value::integer(loop.depth0);
  if (name == "previtem")
    return loop.before.has_value() ? *loop.before : Value::undefined(in.budget(), "there is no previous item");
  if (name == "nextitem") return in.peek(loop) ? *loop.after : Value::undefined(in.budget(), "there is no next item");
  return std::nullopt;
}

}  // namespace

std::optional<Value> own_attribute(Interpreter& in, const Value& value, std::string_view name) {
  const Kind kind = value.kind();
  if (kind == Kind::kNamespace) {
    const Value* found = value.as<Namespace>().find(name);
    return found == nullptr ? std::nullopt : std::optional<Value>(*found);
  }
  const bool is_internal = name.size() > 4 && name.starts_with("__") && name.ends_with("__");
  if (is_internal || is_mutation(kind, name)) {
    return Value::undefined(in.budget(), fmt::format("the attribute {} of a value of type {} is not open to templates",
                                                     quote(name), type_name(value)));
  }
  if (const MethodEntry* entry = find_method(kind, name)) {
    auto method = make_object<Method>(in.budget(), {&value});
    method->self = value;
    method->entry = entry;
    return Value(Kind::kMethod, std::move(method));
  }
  if (kind == Kind::kLoop) return loop_attribute(in, value.as<Loop>(), name);
  if (kind == Kind::kTuple && value.sequence().is_group) {
    if (name == "grouper") return value.items()[0];
    if (name == "list") return value.items()[1];
  }
  if (kind == Kind::kCycler && name == "current") return value.as<Cycler>().items[value.as<Cycler>().position];
  if (kind == Kind::kMacro && name == "name") return in.text(value.as<Macro>().routine->name);
  return std::nullopt;
}

namespace {

// What Python's value[key] finds; nothing for LookupError and TypeError.
std::optional<Value> own_item(Interpreter& in, const Value& value, const Value& key) {
  if (value.is(Kind::kDict)) {
    if (key.is(Kind::kList) || key.is(Kind::kDict)) return std::nullopt;
    const Value* found = value.dict().find(key);
    return found == nullptr ? std::nullopt : std::optional<Value>(*found);
  }
  const bool indexed = value.is_sequence() || value.is_text() || value.is(Kind::kRange);
  if (!indexed || !key.is_integral()) return std::nullopt;
  const int64_t length = static_cast<int64_t>(*length_of(value));
  const int64_t index = key.integer() < 0 ? key.integer() + length : key.integer();
  if (index < 0 || index >= length) return std::nullopt;
  if (value.is_text()) return slice_text(in.budget(), value.text(), index, index + 1);
  if (value.is(Kind::kRange)) return Value::integer(value.as<Range>().at(static_cast<size_t>(index)));
  return value.items()[static_cast<size_t>(index)];
}

Value missing(Interpreter& in, const Value& value, const Value& key) {
  if (key.is_text())
    return Value::undefined(in.budget(),
                            fmt::format("a value of type {} has no {}", type_name(value), quote(key.text().view)));
  if (key.is_integral())
    return Value::undefined(in.budget(),
                            fmt::format("a value of type {} has no item {}", type_name(value), key.integer()));
  return Value::undefined(in.budget(), fmt::format("a value of type {} has no such item", type_name(value)));
}

// --- slices ---

struct Slice {
  int64_t from, step;
  size_t count;
};

// Python's slice.indices.
Slice resolve_slice(int64_t length, const Value& from, const Value& to, const Value& by) {
  const int64_t step = by.is_none() ? 1 : need_integer(by, "a slice");
  if (step == 0) fail("the step of a slice is zero");
  const int64_t low = step < 0 ? -1 : 0, high = step < 0 ? length - 1 : length;
  const auto bound = [&](const Value& value, int64_t otherwise) {
    if (value.is_none()) return otherwise;
    const int64_t i = need_integer(value, "a slice");
    return std::clamp(i < 0 ? i + length : i, low, high);
  };
  const int64_t begin = bound(from, step < 0 ? high : low), end = bound(to, step < 0 ? low : high);
  uint64_t count = 0;
  if (step > 0 && end > begin) count = static_cast<uint64_t>(end - begin - 1) / static_cast<uint64_t>(step) + 1;
  if (step < 0 && begin > end)
    count = static_cast<uint64_t>(begin - end - 1) / (uint64_t{0} - static_cast<uint64_t>(step)) + 1;
  return {begin, step, static_cast<size_t>(count)};
}

size_t slice_index(const Slice& slice, size_t i) {
  return static_cast<size_t>(slice.from + static_cast<int64_t>(i) * slice.step);
}

Value stepped_text(Budget& budget, const Text& text, const Slice& slice) {
  budget.expect_memory((text.length + 1) * sizeof(size_t));
  budget.work(4 * text.view.size());
  std::vector<size_t> starts;
  starts.reserve(text.length + 1);
  for (size_t at = 0; at < text.view.size(); at += static_cast<size_t>(decode_utf8(text.view, at).length))
    starts.push_back(at);
  starts.push_back(text.view.size());
  TextBuilder out(budget);
  for (size_t i = 0; i < slice.count; ++i) {
    const size_t index = slice_index(slice, i);
    out.append(text, starts[index], starts[index + 1]);
  }
  return out.finish(text.markup);
}

}  // namespace

const MethodEntry* find_method(Kind kind, std::string_view name) {
  switch (kind) {
    case Kind::kText: return find_text_method(name);
    case Kind::kDict: return find_in(kDictMethods, name);
    case Kind::kList: return find_in(kListMethods, name);
    case Kind::kTuple:
    case Kind::kRange: return find_in(kTupleMethods, name);
    case Kind::kFloat: return find_in(kFloatMethods, name);
    case Kind::kLoop: return find_in(kLoopMethods, name);
    case Kind::kCycler: return find_in(kCyclerMethods, name);
    default: return nullptr;
  }
}

Value get_attribute(Interpreter& in, const Value& value, std::string_view name) {
  if (value.is_undefined()) fail(value.why_undefined());
  if (auto own = own_attribute(in, value, name)) return *std::move(own);
  if (value.is(Kind::kDict)) {
    if (const Value* found = value.dict().find(name)) return *found;
  }
  return Value::undefined(in.budget(), fmt::format("a value of type {} has no {}", type_name(value), quote(name)));
}

Value get_item(Interpreter& in, const Value& value, const Value& key) {
  if (value.is_undefined()) fail(value.why_undefined());
  if (auto item = own_item(in, value, key)) return *std::move(item);
  if (key.is_text()) {
    if (auto own = own_attribute(in, value, key.text().view)) return *std::move(own);
  }
  return missing(in, value, key);
}

Value get_slice(Interpreter& in, const Value& value, const Value& from, const Value& to, const Value& by) {
  if (value.is_undefined()) fail(value.why_undefined());
  if (!value.is_sequence() && !value.is_text() && !value.is(Kind::kRange)) {
    fail(fmt::format("cannot take a slice of a value of type {}", type_name(value)));
  }
  const Slice slice = resolve_slice(static_cast<int64_t>(*length_of(value)), from, to, by);
  if (value.is_text()) {
    if (slice.step == 1)
      return slice_text(in.budget(), value.text(), slice.from, slice.from + static_cast<int64_t>(slice.count));
    return stepped_text(in.budget(), value.text(), slice);
  }
  if (value.is(Kind::kRange)) {
    const Range& range = value.as<Range>();
    auto out = make_object<Range>(in.budget());
    out->start = add_ints(range.start, multiply_ints(slice.from, range.step));
    out->step = multiply_ints(range.step, slice.step);
    out->size = slice.count;
    out->stop = add_ints(out->start, multiply_ints(static_cast<int64_t>(slice.count), out->step));
    return Value(Kind::kRange, std::move(out));
  }
  ListBuilder out(in.budget());
  out.reserve(slice.count);
  for (size_t i = 0; i < slice.count; ++i) out.push(value.items()[slice_index(slice, i)]);
  return out.finish(value.kind());
}

}  // namespace idefics::jinja
