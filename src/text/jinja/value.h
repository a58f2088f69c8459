// The values of the template language: Python's, as far as templates can see them.
//
// Texts, lists, tuples and dicts are immutable and shared. What can change (a namespace, an iterator, a loop) is an
// object with an identity. Every object carries the memory it was charged for and how deep it nests; no object nests
// deeper than kMaxValueDepth, so that printing, comparing and destroying it can recurse.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "text/jinja/budget.h"
#include "text/jinja/taint.h"

namespace idefics::jinja {

class Interpreter;

constexpr int kMaxValueDepth = 100;

enum class Kind : uint8_t {
  kUndefined,
  kNone,
  kBool,
  kInt,
  kFloat,
  kText,
  kList,
  kTuple,
  kDict,
  kRange,
  kView,      // dict.keys(), .values(), .items()
  kIterator,  // a generator: can be walked once
  kNamespace,
  kMacro,
  kLoop,
  kMethod,    // a method bound to its value
  kFunction,  // a global function
  kCycler,
  kJoiner,
};

struct Object {
  explicit Object(Budget* budget) : charge(budget) {}
  Object(const Object&) = delete;
  Object& operator=(const Object&) = delete;
  virtual ~Object() = default;

  Charge charge;
  int depth = 1;  // 1 + depth of the deepest value inside
};

struct Text;
struct Sequence;
struct Dict;
struct Range;

class Value {
 public:
  Value() = default;  // none
  static Value undefined(Budget& budget, std::string why);
  static Value boolean(bool value);
  static Value integer(int64_t value, bool tainted = false);
  static Value real(double value, bool tainted = false);
  Value(Kind kind, std::shared_ptr<Object> object) : kind_(kind), object_(std::move(object)) {}

  Kind kind() const { return kind_; }
  bool is(Kind kind) const { return kind_ == kind; }
  bool is_undefined() const { return kind_ == Kind::kUndefined; }
  bool is_none() const { return kind_ == Kind::kNone; }
  bool is_text() const { return kind_ == Kind::kText; }
  bool is_integral() const { return kind_ == Kind::kInt || kind_ == Kind::kBool; }  // isinstance(x, int)
  bool is_number() const { return is_integral() || kind_ == Kind::kFloat; }
  bool is_sequence() const { return kind_ == Kind::kList || kind_ == Kind::kTuple; }

  bool boolean() const { return int_ != 0; }
  int64_t integer() const { return int_; }                                                   // REQUIRES: is_integral()
  double real() const { return kind_ == Kind::kFloat ? real_ : static_cast<double>(int_); }  // REQUIRES: is_number()
  // Of a number: it came from outside the template. Of other values see tainted_inside().
  bool tainted() const { return tainted_; }
  Value with_taint(bool tainted) const;

  const Text& text() const;          // REQUIRES: is_text()
  const Sequence& sequence() const;  // REQUIRES: is_sequence()
  const std::vector<Value>& items() const;
  const Dict& dict() const;
  const std::string& why_undefined() const;
  template <typename T>
  T& as() const {
    return static_cast<T&>(*object_);
  }
  const Object* object() const { return object_.get(); }
  const std::shared_ptr<Object>& shared() const { return object_; }
  int depth() const { return object_ == nullptr ? 0 : object_->depth; }

 private:
  Kind kind_ = Kind::kNone;
  bool tainted_ = false;
  union {
    int64_t int_ = 0;
    double real_;
  };
  std::shared_ptr<Object> object_;
};

struct Text final : Object {
  using Object::Object;
  std::string_view view;  // UTF-8; of `owned`, or of the variables of the request
  std::string owned;
  Taint taint;
  size_t length = 0;    // code points
  bool markup = false;  // came from `safe` or `escape` (markupsafe.Markup)

  bool is_ascii() const { return length == view.size(); }
  // Where code point `index` starts. REQUIRES: index <= length.
  size_t offset_of(Budget& budget, size_t index) const;
};

struct Sequence final : Object {
  using Object::Object;
  std::vector<Value> items;
  bool is_group = false;  // a tuple of `groupby`, with the attributes grouper and list
};

struct Dict final : Object {
  using Object::Object;
  std::vector<std::pair<Value, Value>> entries;  // in order of insertion
  // The value of a key equal to `key`, or nothing. Errors: an unhashable key.
  const Value* find(const Value& key) const;
  const Value* find(std::string_view key) const;
  // Sets a key: a new one goes to the end, an old one keeps its place. Only while the dict is being made.
  void set(const Value& key, Value value);

 private:
  std::optional<size_t> index_of(size_t hash, const Value& key) const;
  std::unordered_multimap<size_t, size_t> index_;  // hash of the key -> entry
};

struct Range final : Object {
  using Object::Object;
  int64_t start = 0, stop = 0, step = 1;
  size_t size = 0;
  int64_t at(size_t index) const { return start + static_cast<int64_t>(index) * step; }
};

struct View final : Object {
  using Object::Object;
  enum class Part { kKeys, kValues, kItems } part = Part::kKeys;
  Value of;  // a dict
};

struct Iterator : Object {
  using Object::Object;
  // The next value, or false at the end.
  virtual bool next(Interpreter& in, Value& out) = 0;
};

struct Namespace final : Object {
  using Object::Object;
  std::vector<std::pair<Value, Value>> attributes;
  const Value* find(std::string_view name) const;
  void set(const Value& name, Value value);
};

struct Cycler final : Object {
  using Object::Object;
  std::vector<Value> items;
  size_t position = 0;
};

struct Joiner final : Object {
  using Object::Object;
  Value separator;
  bool used = false;
};

// Makes a text piece by piece, each piece with its taint.
class TextBuilder {
 public:
  explicit TextBuilder(Budget& budget) : charge_(&budget) {}

  void append(std::string_view piece, bool tainted);
  void append(const Text& text) { append(text, 0, text.view.size()); }
  void append(const Text& text, size_t begin, size_t end);  // bytes
  void append(char32_t c, bool tainted);
  void append_repeated(std::string_view piece, size_t count, bool tainted);
  // All bytes from `begin` on are tainted. REQUIRES: no piece at or after `begin` is tainted yet.
  void taint_from(size_t begin);

  size_t size() const { return text_.size(); }
  const Taint& taint() const { return taint_; }
  Budget& budget() const { return *charge_.budget(); }
  Value finish(bool markup = false);
  // The bytes themselves, for the end of a rendering.
  std::string release() { return std::move(text_); }

 private:
  void make_room(size_t more);
  std::string text_;
  Taint taint_;
  Charge charge_;
};

class ListBuilder {
 public:
  explicit ListBuilder(Budget& budget) : charge_(&budget) {}
  void reserve(size_t count);
  void push(Value value);
  size_t size() const { return items_.size(); }
  std::vector<Value>& items() { return items_; }
  Value finish(Kind kind = Kind::kList);

 private:
  std::vector<Value> items_;
  Charge charge_;
};

// --- making values ---

// A text of the template itself (`budget` may be null: a constant) and of a part of another text.
Value make_text(Budget* budget, std::string_view text, bool tainted = false);
Value make_part(Budget& budget, const Text& text, size_t begin, size_t end);  // bytes
// A text of the request that outlives the rendering.
Value borrow_text(Budget& budget, std::string_view text, bool tainted);
Value make_list(Budget& budget, std::vector<Value> items, Kind kind = Kind::kList);
Value finish_dict(Budget& budget, std::shared_ptr<Dict> dict);
std::shared_ptr<Dict> new_dict(Budget& budget);
// An object that holds `inner`.
template <typename T>
std::shared_ptr<T> make_object(Budget& budget, std::initializer_list<const Value*> inner = {}) {
  auto object = std::make_shared<T>(&budget);
  object->charge.grow_to(sizeof(T) + 32);
  for (const Value* value : inner) object->depth = std::max(object->depth, value->depth() + 1);
  if (object->depth > kMaxValueDepth) fail("a value nests too deeply");
  return object;
}

// --- asking values ---

bool truth(const Value& value);
bool equal(Budget& budget, const Value& a, const Value& b);
bool less(Budget& budget, const Value& a, const Value& b);  // Errors: values without an order
bool identical(const Value& a, const Value& b);             // `is`
// len(): nothing for values without one.
std::optional<size_t> length_of(const Value& value);
// type(x).__name__
std::string_view type_name(const Value& value);
// The hash of a key. Errors: unhashable.
size_t hash_of(const Value& value);
// Whether anything inside came from outside the template.
bool tainted_inside(Budget& budget, const Value& value);
// How a text appears in an error: quoted, in one line, cut.
std::string quote(std::string_view text);

// --- printing ---

// str(value) and repr(value).
void append_str(TextBuilder& out, const Value& value);
void append_repr(TextBuilder& out, const Value& value);
Value to_text(Budget& budget, const Value& value);
// A float as Python prints it.
std::string float_repr(double value);

}  // namespace idefics::jinja
