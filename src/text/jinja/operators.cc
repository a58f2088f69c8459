#include "text/jinja/operators.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "text/jinja/format.h"
#include "text/jinja/interpreter.h"
#include "text/jinja/iterate.h"
#include "text/jinja/numbers.h"
#include "text/jinja/text_ops.h"

namespace idefics::jinja {
namespace {

std::string_view symbol(Operator op) {
  constexpr std::string_view kSymbols[] = {"+", "-", "*", "/", "//", "%", "**"};
  return kSymbols[static_cast<size_t>(op)];
}

[[noreturn]] void fail_operands(Operator op, const Value& a, const Value& b) {
  fail(fmt::format("cannot compute {} {} {}", type_name(a), symbol(op), type_name(b)));
}

Value int_arithmetic(Operator op, int64_t a, int64_t b, bool tainted) {
  switch (op) {
    case Operator::kAdd: return Value::integer(add_ints(a, b), tainted);
    case Operator::kSubtract: return Value::integer(subtract_ints(a, b), tainted);
    case Operator::kMultiply: return Value::integer(multiply_ints(a, b), tainted);
    case Operator::kDivide:
      if (b == 0) fail("division by zero");
      return Value::real(static_cast<double>(a) / static_cast<double>(b), tainted);
    case Operator::kFloorDivide: return Value::integer(floor_divide(a, b), tainted);
    case Operator::kModulo: return Value::integer(floor_modulo(a, b), tainted);
    default: break;
  }
  if (b >= 0) return Value::integer(power_ints(a, b), tainted);
  if (a == 0) fail("zero to a negative power");
  return Value::real(std::pow(static_cast<double>(a), static_cast<double>(b)), tainted);
}

double float_power(double a, double b) {
  if (a == 0 && b < 0) fail("zero to a negative power");
  if (a < 0 && std::isfinite(b) && b != std::trunc(b)) fail("a fractional power of a negative number");
  const double out = std::pow(a, b);
  if (std::isinf(out) && std::isfinite(a) && std::isfinite(b)) fail("a power is too large");
  return out;
}

Value float_arithmetic(Operator op, double a, double b, bool tainted) {
  switch (op) {
    case Operator::kAdd: return Value::real(a + b, tainted);
    case Operator::kSubtract: return Value::real(a - b, tainted);
    case Operator::kMultiply: return Value::real(a * b, tainted);
    case Operator::kDivide:
      if (b == 0) fail("division by zero");
      return Value::real(a / b, tainted);
    case Operator::kFloorDivide: return Value::real(floor_divide(a, b), tainted);
    case Operator::kModulo: return Value::real(floor_modulo(a, b), tainted);
    default: return Value::real(float_power(a, b), tainted);
  }
}

Value add_lists(Budget& budget, const Value& a, const Value& b) {
  ListBuilder out(budget);
  out.reserve(a.items().size() + b.items().size());
  for (const Value& item : a.items()) out.push(item);
  for (const Value& item : b.items()) out.push(item);
  return out.finish(a.kind());
}

Value repeat(Budget& budget, const Value& value, int64_t times) {
  const size_t count = times > 0 ? static_cast<size_t>(times) : 0;
  if (value.is_text()) {
    TextBuilder out(budget);
    if (count > 0) budget.expect_memory(std::min(value.text().view.size(), SIZE_MAX / count) * count);
    for (size_t i = 0; i < count && !value.text().view.empty(); ++i) out.append(value.text());
    return out.finish(value.text().markup);
  }
  ListBuilder out(budget);
  if (count > 0) out.reserve(std::min(value.items().size(), SIZE_MAX / 4 / count) * count);
  for (size_t i = 0; i < count && !value.items().empty(); ++i) {
    for (const Value& item : value.items()) out.push(item);
  }
  return out.finish(value.kind());
}

bool range_contains(const Range& range, int64_t number) {
  if (range.size == 0) return false;
  const int64_t last = range.at(range.size - 1);
  const int64_t low = std::min(range.start, last), high = std::max(range.start, last);
  if (number < low || number > high) return false;
  const uint64_t distance = static_cast<uint64_t>(number) - static_cast<uint64_t>(range.start);
  const uint64_t step = static_cast<uint64_t>(range.step);
  return range.step > 0 ? distance % step == 0 : (uint64_t{0} - distance) % (uint64_t{0} - step) == 0;
}

}  // namespace

Value arithmetic(Interpreter& in, Operator op, const Value& a, const Value& b) {
  Budget& budget = in.budget();
  budget.step();
  if (op == Operator::kModulo && a.is_text()) return percent_format(in, a.text(), b);
  if (a.is_undefined()) fail(a.why_undefined());
  if (b.is_undefined()) fail(b.why_undefined());
  if (a.is_number() && b.is_number()) {
    const bool tainted = a.tainted() || b.tainted();
    if (a.is_integral() && b.is_integral()) return int_arithmetic(op, a.integer(), b.integer(), tainted);
    return float_arithmetic(op, a.real(), b.real(), tainted);
  }
  if (op == Operator::kAdd) {
    if (a.is_text() && b.is_text()) return add_texts(budget, a, b);
    if (a.is_sequence() && a.kind() == b.kind()) return add_lists(budget, a, b);
  }
  if (op == Operator::kMultiply) {
    if ((a.is_text() || a.is_sequence()) && b.is_integral()) return repeat(budget, a, b.integer());
    if ((b.is_text() || b.is_sequence()) && a.is_integral()) return repeat(budget, b, a.integer());
  }
  fail_operands(op, a, b);
}

Value negative(const Value& value) {
  if (value.is_undefined()) fail(value.why_undefined());
  if (value.is_integral()) return Value::integer(subtract_ints(0, value.integer()), value.tainted());
  if (value.is_number()) return Value::real(-value.real(), value.tainted());
  fail(fmt::format("cannot negate a value of type {}", type_name(value)));
}

Value positive(const Value& value) {
  if (value.is_undefined()) fail(value.why_undefined());
  if (value.is_integral()) return Value::integer(value.integer(), value.tainted());
  if (value.is_number()) return value;
  fail(fmt::format("cannot take + of a value of type {}", type_name(value)));
}

bool contains(Interpreter& in, const Value& container, const Value& value) {
  switch (container.kind()) {
    case Kind::kText:
      return find(in.budget(), container.text().view, need_text(value, "'in' of a text").view) !=
             std::string_view::npos;
    case Kind::kDict: return container.dict().find(value) != nullptr;
    case Kind::kView:
      if (container.as<View>().part == View::Part::kKeys) return container.as<View>().of.dict().find(value) != nullptr;
      break;
    case Kind::kRange:
      if (value.is_integral()) return range_contains(container.as<Range>(), value.integer());
      break;
    default: break;
  }
  const auto items = iterate(in, container);
  for (Value item; items->next(in, item);) {
    in.budget().work(16);
    if (equal(in.budget(), item, value)) return true;
  }
  return false;
}

bool compare(Interpreter& in, Operator op, const Value& a, const Value& b) {
  Budget& budget = in.budget();
  switch (op) {
    case Operator::kEqual: return equal(budget, a, b);
    case Operator::kNotEqual: return !equal(budget, a, b);
    case Operator::kLess: return less(budget, a, b);
    case Operator::kGreater: return less(budget, b, a);
    case Operator::kLessEqual: return less(budget, a, b) || equal(budget, a, b);
    case Operator::kGreaterEqual: return less(budget, b, a) || equal(budget, a, b);
    case Operator::kIn: return contains(in, b, a);
    default: return !contains(in, b, a);
  }
}

}  // namespace idefics::jinja
