// Filters of lists and dicts. Those that are generators in Jinja do nothing until somebody walks over them.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <functional>
#include <numeric>

#include "text/jinja/filters_internal.h"
#include "text/jinja/iterate.h"
#include "text/jinja/methods.h"
#include "text/jinja/operators.h"
#include "text/jinja/tests.h"
#include "text/jinja/text_ops.h"

namespace idefics::jinja {

// --- attribute paths ---

AttributePath::AttributePath(Interpreter& in, const Value& path) {
  if (path.is_none()) return;
  if (!path.is_text()) {
    parts_.push_back(path);
    return;
  }
  for (const Value& part : split(in.budget(), path.text(), ".", -1)) {
    const std::string_view view = part.text().view;
    const bool number = !view.empty() && view.size() < 10 &&
                        std::all_of(view.begin(), view.end(), [](char c) { return c >= '0' && c <= '9'; });
    parts_.push_back(number ? Value::integer(std::stoi(std::string(view))) : part);
  }
}

Value AttributePath::get(Interpreter& in, const Value& item, const Value* fallback, bool ignore_case) const {
  Value value = item;
  for (const Value& part : parts_) {
    in.budget().step();
    value = get_item(in, value, part);
    if (fallback != nullptr && !fallback->is_none() && value.is_undefined()) value = *fallback;
  }
  return ignore_case && value.is_text() ? lower(in.budget(), value.text()) : value;
}

namespace {

// --- generators ---

class FunctionIterator final : public Iterator {
 public:
  explicit FunctionIterator(Budget* budget) : Iterator(budget) {}
  void start(std::function<bool(Interpreter&, Value&)> next) { next_ = std::move(next); }
  bool next(Interpreter& in, Value& out) override {
    Nesting nesting(in.budget());
    in.budget().step();
    return next_(in, out);
  }

 private:
  std::function<bool(Interpreter&, Value&)> next_;
};

// A generator over `value` with `args`, which `next` holds.
Value generator(Interpreter& in, const Value& value, const Args& args, std::function<bool(Interpreter&, Value&)> next) {
  auto out = make_object<FunctionIterator>(in.budget(), {&value});
  for (const Value& arg : args.positional) out->depth = std::max(out->depth, arg.depth() + 1);
  for (const auto& [name, arg] : args.named) out->depth = std::max(out->depth, arg.depth() + 1);
  if (out->depth > kMaxValueDepth) fail("generators nest too deeply");
  out->charge.grow_to(512 + args.positional.size() * sizeof(Value) + args.named.size() * 2 * sizeof(Value));
  out->start(std::move(next));
  return Value(Kind::kIterator, std::move(out));
}

// The items of a value that is first looked at when the first item is asked for.
struct Source {
  explicit Source(Value v) : value(std::move(v)) {}
  bool next(Interpreter& in, Value& out) {
    if (!std::exchange(started, true) && truth(value)) items = iterate(in, value);
    return items != nullptr && items->next(in, out);
  }
  Value value;
  std::shared_ptr<Iterator> items;
  bool started = false;
};

// A generator whose items are all made when the first one is asked for.
Value deferred(Interpreter& in, const Value& value, const Args& args,
               std::function<std::vector<Value>(Interpreter&)> make) {
  struct State {
    std::shared_ptr<Iterator> items;
  };
  return generator(in, value, args, [make = std::move(make), state = State()](Interpreter& run, Value& out) mutable {
    if (state.items == nullptr) state.items = iterate(run, make_generator(run.budget(), make(run)));
    return state.items->next(run, out);
  });
}

Args from_second(const Args& args, size_t skipped) {
  Args out = args;
  out.positional.erase(out.positional.begin(), out.positional.begin() + static_cast<std::ptrdiff_t>(skipped));
  return out;
}

Value map_attribute(Interpreter& in, const Value& value, const Args& args) {
  const Bound bound("map", args, {"attribute", "default"});
  return generator(in, value, args,
                   [source = Source(value), path = AttributePath(in, bound[0]), fallback = bound.get(1, Value())](
                       Interpreter& run, Value& out) mutable {
                     if (!source.next(run, out)) return false;
                     out = path.get(run, out, &fallback);
                     return true;
                   });
}

Value map_filter(Interpreter& in, const Value& value, const Args& args) {
  if (args.positional.empty() && args.find("attribute") != nullptr) return map_attribute(in, value, args);
  return generator(in, value, args, [source = Source(value), args](Interpreter& run, Value& out) mutable {
    if (!source.next(run, out)) return false;
    if (args.positional.empty()) fail("map needs the name of a filter");
    const std::string_view name = need_text(args.positional[0], "the name of a filter").view;
    out = run.apply(find_filter(name), name, out, from_second(args, 1));
    return true;
  });
}

// select and reject, of items or of an attribute of theirs; the test comes after the attribute.
template <bool kWanted, bool kOfAttribute>
Value select_filter(Interpreter& in, const Value& value, const Args& args) {
  return generator(
      in, value, args,
      [source = Source(value), args, path = std::optional<AttributePath>()](Interpreter& run, Value& out) mutable {
        const size_t test_at = kOfAttribute ? 1 : 0;
        while (source.next(run, out)) {
          run.budget().step();
          if (kOfAttribute && args.positional.empty()) fail("selectattr and rejectattr need the name of an attribute");
          if (kOfAttribute && !path.has_value()) path.emplace(run, args.positional[0]);
          const Value subject = kOfAttribute ? path->get(run, out) : out;
          bool good = false;
          if (args.positional.size() > test_at) {
            const std::string_view name = need_text(args.positional[test_at], "the name of a test").view;
            good = run.apply(find_test(name), name, subject, from_second(args, test_at + 1));
          } else {
            good = truth(subject);
          }
          if (good == kWanted) return true;
        }
        return false;
      });
}

Value items_filter(Interpreter& in, const Value& value, const Args& args) {
  Bound("items", args, {});
  return deferred(in, value, args, [value](Interpreter& run) {
    ListBuilder out(run.budget());
    if (value.is_undefined()) return std::move(out.items());
    if (!value.is(Kind::kDict)) fail("only a dict has items");
    for (const auto& [key, item] : value.dict().entries) out.push(make_pair_value(run.budget(), key, item));
    return std::move(out.items());
  });
}

Value batch_filter(Interpreter& in, const Value& value, const Args& args) {
  const Bound bound("batch", args, {"linecount", "fill_with"}, 1);
  return deferred(in, value, args, [value, size = bound[0], fill = bound.get(1, Value())](Interpreter& run) {
    const int64_t count = need_integer(size, "batch");
    ListBuilder out(run.budget());
    auto row = std::make_unique<ListBuilder>(run.budget());
    const auto finish_row = [&] {
      out.push(row->finish());
      row = std::make_unique<ListBuilder>(run.budget());
    };
    const auto items = iterate(run, value);
    for (Value item; items->next(run, item);) {
      if (static_cast<int64_t>(row->size()) == count) finish_row();
      row->push(item);
    }
    if (row->size() == 0) return std::move(out.items());
    while (!fill.is_none() && static_cast<int64_t>(row->size()) < count) row->push(fill);
    finish_row();
    return std::move(out.items());
  });
}

Value slice_filter(Interpreter& in, const Value& value, const Args& args) {
  const Bound bound("slice", args, {"slices", "fill_with"}, 1);
  return deferred(in, value, args, [value, slices = bound[0], fill = bound.get(1, Value())](Interpreter& run) {
    const std::vector<Value> items = to_items(run, value);
    const int64_t count = need_integer(slices, "slice");
    if (count == 0) fail("slice needs at least one slice");
    ListBuilder out(run.budget());
    size_t at = 0;
    for (int64_t i = 0; i < count; ++i) {
      run.budget().step();
      const auto n = static_cast<int64_t>(items.size());
      const bool extra = i < n % count;
      ListBuilder row(run.budget());
      for (int64_t k = 0; k < n / count + (extra ? 1 : 0); ++k) row.push(items[at++]);
      if (!fill.is_none() && !extra) row.push(fill);
      out.push(row.finish());
    }
    return std::move(out.items());
  });
}

Value unique_filter(Interpreter& in, const Value& value, const Args& args) {
  const Bound bound("unique", args, {"case_sensitive", "attribute"});
  const bool ignore_case = !bound.flag(0, false);
  return deferred(in, value, args, [value, ignore_case, attribute = bound.get(1, Value())](Interpreter& run) {
    const AttributePath path(run, attribute);
    const auto seen = new_dict(run.budget());
    ListBuilder out(run.budget());
    const auto items = iterate(run, value);
    for (Value item; items->next(run, item);) {
      run.budget().step();
      const Value key = path.get(run, item, nullptr, ignore_case);
      if (seen->find(key) != nullptr) continue;
      seen->set(key, Value());
      out.push(item);
    }
    return std::move(out.items());
  });
}

Value reverse_filter(Interpreter& in, const Value& value, const Args& args) {
  Bound("reverse", args, {});
  if (value.is_text()) return get_slice(in, value, Value(), Value(), Value::integer(-1));
  std::vector<Value> items;
  if (reversed_items(in, value, items)) return make_generator(in.budget(), std::move(items));
  items = to_items(in, value);
  std::reverse(items.begin(), items.end());
  return make_list(in.budget(), std::move(items));
}

// --- one out of many ---

Value first_filter(Interpreter& in, const Value& value, const Args& args) {
  Bound("first", args, {});
  Value out;
  return iterate(in, value)->next(in, out)
             ? out
             : Value::undefined(in.budget(), "there is no first item: the sequence is empty");
}

Value last_filter(Interpreter& in, const Value& value, const Args& args) {
  Bound("last", args, {});
  std::vector<Value> items;
  if (!reversed_items(in, value, items)) fail(fmt::format("a value of type {} has no last item", type_name(value)));
  return items.empty() ? Value::undefined(in.budget(), "there is no last item: the sequence is empty") : items.front();
}

template <bool kMax>
Value extreme_filter(Interpreter& in, const Value& value, const Args& args) {
  const Bound bound(kMax ? "max" : "min", args, {"case_sensitive", "attribute"});
  const AttributePath path(in, bound.get(1, Value()));
  const bool ignore_case = !bound.flag(0, false);
  const auto items = iterate(in, value);
  Value item, best, best_key;
  bool any = false;
  while (items->next(in, item)) {
    in.budget().step();
    const Value key = path.get(in, item, nullptr, ignore_case);
    if (!any || (kMax ? less(in.budget(), best_key, key) : less(in.budget(), key, best_key))) {
      best = item;
      best_key = key;
    }
    any = true;
  }
  return any ? best : Value::undefined(in.budget(), "there is nothing to choose from: the sequence is empty");
}

Value length_filter(Interpreter& in, const Value& value, const Args& args) {
  Bound("length", args, {});
  if (value.is(Kind::kLoop)) return Value::integer(static_cast<int64_t>(in.loop_length(value.as<Loop>())));
  const auto length = length_of(value);
  if (!length.has_value()) fail(fmt::format("a value of type {} has no length", type_name(value)));
  return Value::integer(static_cast<int64_t>(*length));
}

Value sum_filter(Interpreter& in, const Value& value, const Args& args) {
  const Bound bound("sum", args, {"attribute", "start"});
  const AttributePath path(in, bound.get(0, Value()));
  Value total = bound.get(1, Value::integer(0));
  if (total.is_text()) fail("sum cannot add texts; use join");
  const auto items = iterate(in, value);
  for (Value item; items->next(in, item);) total = arithmetic(in, Operator::kAdd, total, path.get(in, item));
  return total;
}

// --- lists ---

Value list_filter(Interpreter& in, const Value& value, const Args& args) {
  Bound("list", args, {});
  return make_list(in.budget(), to_items(in, value));
}

Value join_filter(Interpreter& in, const Value& value, const Args& args) {
  const Bound bound("join", args, {"d", "attribute"});
  const Value separator = bound.has(0) ? to_text(in.budget(), bound[0]) : in.text("");
  const AttributePath path(in, bound.get(1, Value()));
  TextBuilder out(in.budget());
  const auto items = iterate(in, value);
  bool first = true;
  for (Value item; items->next(in, item); first = false) {
    in.budget().step();
    if (!first) out.append(separator.text());
    append_str(out, path.get(in, item));
  }
  return out.finish();
}

// Sorted by keys, stable also in reverse.
std::vector<Value> sorted(Interpreter& in, const std::vector<Value>& items, const std::vector<Value>& keys,
                          bool reverse) {
  std::vector<size_t> order(items.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return reverse ? less(in.budget(), keys[b], keys[a]) : less(in.budget(), keys[a], keys[b]);
  });
  ListBuilder out(in.budget());
  for (const size_t i : order) out.push(items[i]);
  return std::move(out.items());
}

Value sort_filter(Interpreter& in, const Value& value, const Args& args) {
  const Bound bound("sort", args, {"reverse", "case_sensitive", "attribute"});
  const bool ignore_case = !bound.flag(1, false);
  const Value attribute = bound.get(2, Value());
  std::vector<AttributePath> paths;
  if (attribute.is_text()) {
    for (const Value& part : split(in.budget(), attribute.text(), ",", -1)) paths.emplace_back(in, part);
  } else {
    paths.emplace_back(in, attribute);
  }
  const std::vector<Value> items = to_items(in, value);
  ListBuilder keys(in.budget());
  for (const Value& item : items) {
    in.budget().step();
    std::vector<Value> key;
    for (const AttributePath& path : paths) key.push_back(path.get(in, item, nullptr, ignore_case));
    keys.push(make_list(in.budget(), std::move(key)));
  }
  return make_list(in.budget(), sorted(in, items, keys.items(), bound.flag(0, false)));
}

Value dictsort_filter(Interpreter& in, const Value& value, const Args& args) {
  const Bound bound("dictsort", args, {"case_sensitive", "by", "reverse"});
  if (value.is_undefined()) fail(value.why_undefined());
  if (!value.is(Kind::kDict)) fail("dictsort needs a dict");
  const std::string_view by = bound.has(1) ? bound.text(1).view : "key";
  if (by != "key" && by != "value") fail("dictsort sorts by 'key' or by 'value'");
  const bool ignore_case = !bound.flag(0, false);
  ListBuilder items(in.budget()), keys(in.budget());
  for (const auto& [key, item] : value.dict().entries) {
    in.budget().step();
    const Value& chosen = by == "key" ? key : item;
    items.push(make_pair_value(in.budget(), key, item));
    keys.push(ignore_case && chosen.is_text() ? lower(in.budget(), chosen.text()) : chosen);
  }
  return make_list(in.budget(), sorted(in, items.items(), keys.items(), bound.flag(2, false)));
}

Value make_group(Interpreter& in, const Value& grouper, Value items) {
  Value group = make_pair_value(in.budget(), grouper, items);
  group.as<Sequence>().is_group = true;
  return group;
}

Value groupby_filter(Interpreter& in, const Value& value, const Args& args) {
  const Bound bound("groupby", args, {"attribute", "default", "case_sensitive"}, 1);
  const AttributePath path(in, bound[0]);
  const Value fallback = bound.get(1, Value());
  const bool ignore_case = !bound.flag(2, false);
  const std::vector<Value> unsorted = to_items(in, value);
  ListBuilder keys(in.budget());
  for (const Value& item : unsorted) keys.push(path.get(in, item, &fallback, ignore_case));
  const std::vector<Value> items = sorted(in, unsorted, keys.items(), false);
  ListBuilder out(in.budget());
  for (size_t begin = 0, end = 0; begin < items.size(); begin = end) {
    const Value key = path.get(in, items[begin], &fallback, ignore_case);
    ListBuilder group(in.budget());
    for (end = begin; end < items.size(); ++end) {
      in.budget().step();
      if (!equal(in.budget(), key, path.get(in, items[end], &fallback, ignore_case))) break;
      group.push(items[end]);
    }
    if (end == begin) group.push(items[end++]);  // a key that does not equal itself (nan)
    out.push(make_group(in, path.get(in, items[begin], &fallback), group.finish()));
  }
  return out.finish();
}

// --- anything ---

Value default_filter(Interpreter& in, const Value& value, const Args& args) {
  const Bound bound("default", args, {"default_value", "boolean"});
  const bool replaced = value.is_undefined() || (bound.flag(1, false) && !truth(value));
  return replaced ? bound.get(0, in.text("")) : value;
}

Value attr_filter(Interpreter& in, const Value& value, const Args& args) {
  const Bound bound("attr", args, {"name"}, 1);
  if (value.is_undefined()) fail(value.why_undefined());
  const Text& name = bound.text(0);
  if (auto found = own_attribute(in, value, name.view)) return *std::move(found);
  return Value::undefined(in.budget(),
                          fmt::format("a value of type {} has no attribute {}", type_name(value), quote(name.view)));
}

constexpr std::array kFilters = {
    FilterEntry{"attr", attr_filter},
    FilterEntry{"batch", batch_filter},
    FilterEntry{"count", length_filter},
    FilterEntry{"d", default_filter},
    FilterEntry{"default", default_filter},
    FilterEntry{"dictsort", dictsort_filter},
    FilterEntry{"first", first_filter},
    FilterEntry{"groupby", groupby_filter},
    FilterEntry{"items", items_filter},
    FilterEntry{"join", join_filter},
    FilterEntry{"last", last_filter},
    FilterEntry{"length", length_filter},
    FilterEntry{"list", list_filter},
    FilterEntry{"map", map_filter},
    FilterEntry{"max", extreme_filter<true>},
    FilterEntry{"min", extreme_filter<false>},
    FilterEntry{"reject", select_filter<false, false>},
    FilterEntry{"rejectattr", select_filter<false, true>},
    FilterEntry{"reverse", reverse_filter},
    FilterEntry{"select", select_filter<true, false>},
    FilterEntry{"selectattr", select_filter<true, true>},
    FilterEntry{"slice", slice_filter},
    FilterEntry{"sort", sort_filter},
    FilterEntry{"sum", sum_filter},
    FilterEntry{"unique", unique_filter},
};

}  // namespace

std::span<const FilterEntry> item_filters() { return kFilters; }

const FilterEntry* find_filter(std::string_view name) {
  for (const std::span<const FilterEntry> table : {text_filters(), item_filters()}) {
    for (const FilterEntry& entry : table) {
      if (entry.name == name) return &entry;
    }
  }
  return nullptr;
}

}  // namespace idefics::jinja
