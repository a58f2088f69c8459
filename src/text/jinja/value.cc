#include "text/jinja/value.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>

#include "base/check.h"
#include "base/utf8.h"

namespace idefics::jinja {
namespace {

struct UndefinedReason final : Object {
  using Object::Object;
  std::string why;
};

size_t count_code_points(std::string_view text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

int depth_of(const std::vector<Value>& items) {
  int depth = 0;
  for (const Value& item : items) depth = std::max(depth, item.depth());
  return depth;
}

void set_depth(Object& object, int inside) {
  object.depth = inside + 1;
  if (object.depth > kMaxValueDepth) fail("a value nests too deeply");
}

// Whether the float is a whole number of 64 bits, and which.
std::optional<int64_t> whole(double value) {
  if (!(value >= -0x1p63 && value < 0x1p63) || value != std::trunc(value)) return std::nullopt;
  return static_cast<int64_t>(value);
}

bool equal_numbers(const Value& a, const Value& b) {
  if (a.is_integral() && b.is_integral()) return a.integer() == b.integer();
  if (a.is(Kind::kFloat) && b.is(Kind::kFloat)) return a.real() == b.real();
  const auto as_whole = whole(a.is(Kind::kFloat) ? a.real() : b.real());
  return as_whole.has_value() && *as_whole == (a.is(Kind::kFloat) ? b.integer() : a.integer());
}

bool less_numbers(const Value& a, const Value& b) {
  if (a.is_integral() && b.is_integral()) return a.integer() < b.integer();
  return a.real() < b.real();
}

bool equal_items(Budget& budget, const std::vector<Value>& a, const std::vector<Value>& b) {
  return a.size() == b.size() &&
         std::equal(a.begin(), a.end(), b.begin(), [&](const Value& x, const Value& y) { return equal(budget, x, y); });
}

bool equal_dicts(Budget& budget, const Dict& a, const Dict& b) {
  if (a.entries.size() != b.entries.size()) return false;
  for (const auto& [key, value] : a.entries) {
    const Value* other = b.find(key);
    if (other == nullptr || !equal(budget, value, *other)) return false;
  }
  return true;
}

// Views of keys and of items compare like sets; views of values only by identity.
bool equal_views(Budget& budget, const View& a, const View& b) {
  const Dict &x = a.of.dict(), &y = b.of.dict();
  if (a.part != b.part || a.part == View::Part::kValues) return &a == &b;
  if (a.part == View::Part::kItems) return equal_dicts(budget, x, y);
  return x.entries.size() == y.entries.size() &&
         std::all_of(x.entries.begin(), x.entries.end(),
                     [&](const auto& entry) { return y.find(entry.first) != nullptr; });
}

bool less_items(Budget& budget, const std::vector<Value>& a, const std::vector<Value>& b) {
  for (size_t i = 0; i < a.size() && i < b.size(); ++i) {
    if (!equal(budget, a[i], b[i])) return less(budget, a[i], b[i]);
  }
  return a.size() < b.size();
}

// Keys are hashable: numbers, texts, none, tuples of them, objects.
bool same_key(const Value& a, const Value& b) {
  if (a.is_text() && b.is_text()) return a.text().view == b.text().view;
  if (a.is_number() && b.is_number()) return equal_numbers(a, b);
  if (a.kind() != b.kind()) return false;
  if (a.is(Kind::kTuple))
    return std::equal(a.items().begin(), a.items().end(), b.items().begin(), b.items().end(), same_key);
  return identical(a, b);
}

}  // namespace

// --- Value ---

Value Value::undefined(Budget& budget, std::string why) {
  auto reason = std::make_shared<UndefinedReason>(&budget);
  reason->charge.grow_to(sizeof(UndefinedReason) + 16 + why.capacity());
  reason->why = std::move(why);
  reason->depth = 0;
  return Value(Kind::kUndefined, std::move(reason));
}

Value Value::boolean(bool value) {
  Value out;
  out.kind_ = Kind::kBool;
  out.int_ = value;
  return out;
}

Value Value::integer(int64_t value, bool tainted) {
  Value out;
  out.kind_ = Kind::kInt;
  out.int_ = value;
  out.tainted_ = tainted;
  return out;
}

Value Value::real(double value, bool tainted) {
  Value out;
  out.kind_ = Kind::kFloat;
  out.real_ = value;
  out.tainted_ = tainted;
  return out;
}

Value Value::with_taint(bool tainted) const {
  Value out = *this;
  out.tainted_ = tainted;
  return out;
}

const Text& Value::text() const { return as<Text>(); }
const Sequence& Value::sequence() const { return as<Sequence>(); }
const std::vector<Value>& Value::items() const { return as<Sequence>().items; }
const Dict& Value::dict() const { return as<Dict>(); }
const std::string& Value::why_undefined() const { return as<UndefinedReason>().why; }

size_t Text::offset_of(Budget& budget, size_t index) const {
  if (is_ascii()) return index;
  size_t at = 0;
  for (size_t seen = 0; seen < index; ++seen) {
    ++at;
    while (at < view.size() && (static_cast<unsigned char>(view[at]) & 0xc0) == 0x80) ++at;
  }
  budget.work(at);
  return at;
}

// --- Dict and Namespace ---

std::optional<size_t> Dict::index_of(size_t hash, const Value& key) const {
  const auto [begin, end] = index_.equal_range(hash);
  for (auto it = begin; it != end; ++it) {
    charge.budget()->work(16);  // keys of a request may be chosen so that many have one hash
    if (same_key(entries[it->second].first, key)) return it->second;
  }
  return std::nullopt;
}

const Value* Dict::find(const Value& key) const {
  const auto at = index_of(hash_of(key), key);
  return at.has_value() ? &entries[*at].second : nullptr;
}

const Value* Dict::find(std::string_view key) const {
  const auto [begin, end] = index_.equal_range(std::hash<std::string_view>{}(key));
  for (auto it = begin; it != end; ++it) {
    charge.budget()->work(16);
    const Value& candidate = entries[it->second].first;
    if (candidate.is_text() && candidate.text().view == key) return &entries[it->second].second;
  }
  return nullptr;
}

void Dict::set(const Value& key, Value value) {
  const size_t hash = hash_of(key);
  if (const auto at = index_of(hash, key)) {
    entries[*at].second = std::move(value);
    return;
  }
  index_.emplace(hash, entries.size());
  entries.emplace_back(key, std::move(value));
  charge.grow_to(sizeof(Dict) + entries.size() * (2 * sizeof(Value) + 64));
}

const Value* Namespace::find(std::string_view name) const {
  for (const auto& [key, value] : attributes) {
    if (key.text().view == name) return &value;
  }
  return nullptr;
}

void Namespace::set(const Value& name, Value value) {
  if (name.is_text() && name.text().view.starts_with('_')) {
    fail(fmt::format("a namespace cannot hold the name {}, which begins with an underscore", quote(name.text().view)));
  }
  for (auto& [key, old] : attributes) {
    if (key.text().view == name.text().view) {
      old = std::move(value);
      return;
    }
  }
  attributes.emplace_back(name, std::move(value));
  charge.grow_to(sizeof(Namespace) + attributes.size() * 2 * sizeof(Value));
}

// --- builders ---

void TextBuilder::make_room(size_t more) {
  const size_t needed = text_.size() + more;
  if (needed <= text_.capacity()) return;
  const size_t capacity = std::max(needed, text_.capacity() * 2);
  budget().expect_memory(capacity);  // beside what is there, until it has moved
  charge_.grow_to(sizeof(Text) + capacity + taint_.ranges().size() * sizeof(TextRange));
  text_.reserve(capacity);
}

void TextBuilder::append(std::string_view piece, bool tainted) {
  budget().work(piece.size());
  make_room(piece.size());
  if (tainted) taint_.add(text_.size(), text_.size() + piece.size());
  text_ += piece;
}

void TextBuilder::append(const Text& text, size_t begin, size_t end) {
  budget().work(end - begin);
  make_room(end - begin);
  const size_t before = taint_.ranges().size();
  taint_.add_part(text.taint, begin, end, text_.size());
  if (taint_.ranges().size() > before + 4)
    charge_.grow_to(text_.capacity() + taint_.ranges().size() * sizeof(TextRange) * 2);
  text_ += text.view.substr(begin, end - begin);
}

void TextBuilder::append(char32_t c, bool tainted) {
  make_room(4);
  const size_t before = text_.size();
  append_utf8(text_, c);
  if (tainted) taint_.add(before, text_.size());
}

void TextBuilder::append_repeated(std::string_view piece, size_t count, bool tainted) {
  if (piece.empty()) return;
  if (count > SIZE_MAX / piece.size()) fail("a text grows too long");
  budget().expect_memory(piece.size() * count);
  for (size_t i = 0; i < count; ++i) append(piece, tainted);
}

void TextBuilder::taint_from(size_t begin) { taint_.add(begin, text_.size()); }

Value TextBuilder::finish(bool markup) {
  auto out = std::make_shared<Text>(charge_.budget());
  out->charge = std::move(charge_);
  out->owned = std::move(text_);
  text_.clear();
  out->view = out->owned;
  out->taint = std::move(taint_);
  out->length = count_code_points(out->view);
  out->markup = markup;
  out->depth = 0;
  out->charge.grow_to(sizeof(Text) + 16 + out->owned.capacity() + out->taint.ranges().capacity() * sizeof(TextRange));
  budget().work(out->view.size() / 8);
  return Value(Kind::kText, std::move(out));
}

void ListBuilder::reserve(size_t count) {
  if (count > SIZE_MAX / 2 / sizeof(Value)) fail("a list grows too long");
  charge_.budget()->expect_memory(count * sizeof(Value));  // beside what is there, until it has moved
  charge_.grow_to(count * sizeof(Value));
  items_.reserve(count);
}

void ListBuilder::push(Value value) {
  charge_.budget()->work(8);
  if (items_.size() == items_.capacity()) reserve(std::max<size_t>(4, items_.capacity() * 2));
  items_.push_back(std::move(value));
}

Value ListBuilder::finish(Kind kind) {
  auto out = std::make_shared<Sequence>(charge_.budget());
  out->charge = std::move(charge_);
  out->charge.grow_to(sizeof(Sequence) + 16 + items_.capacity() * sizeof(Value));
  set_depth(*out, depth_of(items_));
  out->items = std::move(items_);
  items_.clear();
  return Value(kind, std::move(out));
}

// --- making values ---

Value make_text(Budget* budget, std::string_view text, bool tainted) {
  auto out = std::make_shared<Text>(budget);
  out->charge.grow_to(sizeof(Text) + 16 + text.size());
  out->owned = text;
  out->view = out->owned;
  if (tainted) out->taint.add(0, text.size());
  out->length = count_code_points(text);
  out->depth = 0;
  return Value(Kind::kText, std::move(out));
}

Value make_part(Budget& budget, const Text& text, size_t begin, size_t end) {
  TextBuilder out(budget);
  out.append(text, begin, end);
  return out.finish(text.markup);
}

Value borrow_text(Budget& budget, std::string_view text, bool tainted) {
  auto out = std::make_shared<Text>(&budget);
  out->charge.grow_to(sizeof(Text) + 16);
  out->view = text;
  if (tainted) out->taint.add(0, text.size());
  out->length = count_code_points(text);
  out->depth = 0;
  return Value(Kind::kText, std::move(out));
}

Value make_list(Budget& budget, std::vector<Value> items, Kind kind) {
  IDEFICS_CHECK(kind == Kind::kList || kind == Kind::kTuple);
  ListBuilder out(budget);
  out.items() = std::move(items);
  return out.finish(kind);
}

std::shared_ptr<Dict> new_dict(Budget& budget) {
  auto dict = std::make_shared<Dict>(&budget);
  dict->charge.grow_to(sizeof(Dict) + 16);
  return dict;
}

Value finish_dict(Budget& budget, std::shared_ptr<Dict> dict) {
  budget.work(8 * dict->entries.size());
  int depth = 0;
  for (const auto& [key, value] : dict->entries) depth = std::max({depth, key.depth(), value.depth()});
  set_depth(*dict, depth);
  return Value(Kind::kDict, std::move(dict));
}

// --- asking values ---

std::optional<size_t> length_of(const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined: return 0;
    case Kind::kText: return value.text().length;
    case Kind::kList:
    case Kind::kTuple: return value.items().size();
    case Kind::kDict: return value.dict().entries.size();
    case Kind::kRange: return value.as<Range>().size;
    case Kind::kView: return value.as<View>().of.dict().entries.size();
    default: return std::nullopt;
  }
}

bool truth(const Value& value) {
  switch (value.kind()) {
    case Kind::kNone: return false;
    case Kind::kBool:
    case Kind::kInt: return value.integer() != 0;
    case Kind::kFloat: return value.real() != 0;
    default: return length_of(value).value_or(1) != 0;
  }
}

bool identical(const Value& a, const Value& b) {
  if (a.kind() != b.kind()) return false;
  if (a.object() != nullptr || b.object() != nullptr) return a.object() == b.object();
  if (a.is(Kind::kFloat)) return a.real() == b.real();
  return a.integer() == b.integer();
}

bool equal(Budget& budget, const Value& a, const Value& b) {
  budget.work(8);
  if (a.is_number() && b.is_number()) return equal_numbers(a, b);
  if (a.kind() != b.kind()) return false;
  switch (a.kind()) {
    case Kind::kUndefined:
    case Kind::kNone: return true;
    case Kind::kText: budget.work(a.text().view.size()); return a.text().view == b.text().view;
    case Kind::kList:
    case Kind::kTuple: return equal_items(budget, a.items(), b.items());
    case Kind::kDict: return equal_dicts(budget, a.dict(), b.dict());
    case Kind::kRange: {
      const Range &x = a.as<Range>(), &y = b.as<Range>();
      return x.size == y.size && (x.size == 0 || (x.start == y.start && (x.size == 1 || x.step == y.step)));
    }
    case Kind::kView: return equal_views(budget, a.as<View>(), b.as<View>());
    default: return identical(a, b);
  }
}

bool less(Budget& budget, const Value& a, const Value& b) {
  budget.work(8);
  if (a.is_undefined()) fail(a.why_undefined());
  if (b.is_undefined()) fail(b.why_undefined());
  if (a.is_number() && b.is_number()) return less_numbers(a, b);
  if (a.is_text() && b.is_text()) {
    budget.work(std::min(a.text().view.size(), b.text().view.size()));
    return a.text().view < b.text().view;  // the order of UTF-8 bytes is that of code points
  }
  if (a.is_sequence() && a.kind() == b.kind()) return less_items(budget, a.items(), b.items());
  fail(fmt::format("cannot order a value of type {} and one of type {}", type_name(a), type_name(b)));
}

std::string_view type_name(const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined: return "Undefined";
    case Kind::kNone: return "NoneType";
    case Kind::kBool: return "bool";
    case Kind::kInt: return "int";
    case Kind::kFloat: return "float";
    case Kind::kText: return value.text().markup ? "Markup" : "str";
    case Kind::kList: return "list";
    case Kind::kTuple: return "tuple";
    case Kind::kDict: return "dict";
    case Kind::kRange: return "range";
    case Kind::kView: return "dict view";
    case Kind::kIterator: return "generator";
    case Kind::kNamespace: return "Namespace";
    case Kind::kMacro: return "Macro";
    case Kind::kLoop: return "LoopContext";
    case Kind::kMethod: return "method";
    case Kind::kFunction: return "function";
    case Kind::kCycler: return "Cycler";
    case Kind::kJoiner: return "Joiner";
  }
  return "?";
}

size_t hash_of(const Value& value) {
  switch (value.kind()) {
    case Kind::kText: return std::hash<std::string_view>{}(value.text().view);
    case Kind::kBool:
    case Kind::kInt: return std::hash<int64_t>{}(value.integer());
    case Kind::kFloat: {
      const auto as_whole = whole(value.real());  // 1.0 and 1 are one key
      return as_whole.has_value() ? std::hash<int64_t>{}(*as_whole) : std::hash<double>{}(value.real());
    }
    case Kind::kTuple: {
      size_t hash = value.items().size();
      for (const Value& item : value.items()) hash = hash * 1000003 + hash_of(item);
      return hash;
    }
    case Kind::kList:
    case Kind::kDict:
    case Kind::kView: fail(fmt::format("a value of type {} cannot be a key", type_name(value)));
    case Kind::kNone:
    case Kind::kUndefined: return 1;
    default: return std::hash<const void*>{}(value.object());
  }
}

bool tainted_inside(Budget& budget, const Value& value) {
  Nesting nesting(budget);  // a namespace can hold itself
  budget.work(8);
  const auto any = [&](const auto& pairs) {
    return std::any_of(pairs.begin(), pairs.end(), [&](const auto& pair) {
      return tainted_inside(budget, pair.first) || tainted_inside(budget, pair.second);
    });
  };
  switch (value.kind()) {
    case Kind::kText: return value.text().taint.any();
    case Kind::kList:
    case Kind::kTuple:
      return std::any_of(value.items().begin(), value.items().end(),
                         [&](const Value& item) { return tainted_inside(budget, item); });
    case Kind::kDict: return any(value.dict().entries);
    case Kind::kView: return tainted_inside(budget, value.as<View>().of);
    case Kind::kNamespace: return any(value.as<Namespace>().attributes);
    default: return value.tainted();
  }
}

std::string quote(std::string_view text) {
  constexpr size_t kMost = 100;
  std::string out = "'";
  for (size_t i = 0; i < text.size() && i < kMost; ++i) {
    const unsigned char c = static_cast<unsigned char>(text[i]);
    if (c < 0x20 || c == 0x7f) {
      out += fmt::format("\\x{:02x}", c);
    } else {
      out += text[i];
    }
  }
  out.resize(out.size() - incomplete_utf8_tail(out));
  return out + (text.size() > kMost ? "...'" : "'");
}

}  // namespace idefics::jinja
