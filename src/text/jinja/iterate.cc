#include "text/jinja/iterate.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/utf8.h"
#include "text/jinja/interpreter.h"

namespace idefics::jinja {
namespace {

// Walks over a value by index.
template <typename Get>
class IndexIterator final : public Iterator {
 public:
  explicit IndexIterator(Budget* budget) : Iterator(budget) {}
  void start(Value of, size_t count) {
    of_ = std::move(of);
    count_ = count;
  }
  bool next(Interpreter& in, Value& out) override {
    if (next_ >= count_) return false;
    out = Get{}(in.budget(), of_, next_++);
    return true;
  }

 private:
  Value of_;
  size_t count_ = 0, next_ = 0;
};

struct GetItem {
  Value operator()(Budget&, const Value& of, size_t i) const { return of.items()[i]; }
};
struct GetKey {
  Value operator()(Budget&, const Value& of, size_t i) const { return of.dict().entries[i].first; }
};
struct GetNumber {
  Value operator()(Budget&, const Value& of, size_t i) const { return Value::integer(of.as<Range>().at(i)); }
};
struct GetFromView {
  Value operator()(Budget& budget, const Value& of, size_t i) const {
    const View& view = of.as<View>();
    const auto& [key, value] = view.of.dict().entries[i];
    if (view.part == View::Part::kKeys) return key;
    if (view.part == View::Part::kValues) return value;
    return make_pair_value(budget, key, value);
  }
};

class CharacterIterator final : public Iterator {
 public:
  explicit CharacterIterator(Budget* budget) : Iterator(budget) {}
  void start(Value of) { of_ = std::move(of); }
  bool next(Interpreter& in, Value& out) override {
    const Text& text = of_.text();
    if (at_ >= text.view.size()) return false;
    const size_t end = at_ + static_cast<size_t>(decode_utf8(text.view, at_).length);
    TextBuilder character(in.budget());  // a plain text, also of markup
    character.append(text, at_, end);
    out = character.finish();
    at_ = end;
    return true;
  }

 private:
  Value of_;
  size_t at_ = 0;
};

template <typename Get>
std::shared_ptr<Iterator> by_index(Budget& budget, const Value& value, size_t count) {
  auto out = make_object<IndexIterator<Get>>(budget, {&value});
  out->start(value, count);
  return out;
}

}  // namespace

std::shared_ptr<Iterator> iterate(Interpreter& in, const Value& value) {
  Budget& budget = in.budget();
  const size_t count = length_of(value).value_or(0);
  switch (value.kind()) {
    case Kind::kUndefined: return by_index<GetItem>(budget, Value(), 0);
    case Kind::kList:
    case Kind::kTuple: return by_index<GetItem>(budget, value, count);
    case Kind::kDict: return by_index<GetKey>(budget, value, count);
    case Kind::kRange: return by_index<GetNumber>(budget, value, count);
    case Kind::kView: return by_index<GetFromView>(budget, value, count);
    case Kind::kIterator: return std::static_pointer_cast<Iterator>(value.shared());
    case Kind::kText: {
      auto out = make_object<CharacterIterator>(budget);
      out->start(value);
      return out;
    }
    default: fail(fmt::format("a value of type {} cannot be walked over", type_name(value)));
  }
}

bool is_iterable(const Value& value) {
  return length_of(value).has_value() || value.is(Kind::kIterator) || value.is(Kind::kLoop);
}

std::vector<Value> to_items(Interpreter& in, const Value& value) {
  if (value.is_sequence()) {
    in.budget().work(8 * value.items().size());
    in.budget().expect_memory(value.items().size() * sizeof(Value));
    return value.items();
  }
  const auto items = iterate(in, value);
  ListBuilder out(in.budget());
  for (Value item; items->next(in, item);) out.push(std::move(item));
  return std::move(out.items());
}

bool reversed_items(Interpreter& in, const Value& value, std::vector<Value>& out) {
  if (!length_of(value).has_value()) return false;
  out = to_items(in, value);
  std::reverse(out.begin(), out.end());
  return true;
}

Value make_pair_value(Budget& budget, const Value& first, const Value& second) {
  return make_list(budget, {first, second}, Kind::kTuple);
}

Value make_generator(Budget& budget, std::vector<Value> items) {
  const Value list = make_list(budget, std::move(items));
  return Value(Kind::kIterator, by_index<GetItem>(budget, list, list.items().size()));
}

}  // namespace idefics::jinja
