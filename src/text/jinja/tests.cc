#include "text/jinja/tests.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "text/jinja/filters.h"
#include "text/jinja/interpreter.h"
#include "text/jinja/iterate.h"
#include "text/jinja/methods.h"
#include "text/jinja/numbers.h"
#include "text/jinja/operators.h"

namespace idefics::jinja {
namespace {

template <bool (*kIs)(const Value&)>
bool simple_test(Interpreter&, const Value& value, const Args& args) {
  Bound("the test", args, {});
  return kIs(value);
}

bool is_defined(const Value& v) { return !v.is_undefined(); }
bool is_undefined(const Value& v) { return v.is_undefined(); }
bool is_none(const Value& v) { return v.is_none(); }
bool is_boolean(const Value& v) { return v.is(Kind::kBool); }
bool is_true(const Value& v) { return v.is(Kind::kBool) && v.boolean(); }
bool is_false(const Value& v) { return v.is(Kind::kBool) && !v.boolean(); }
bool is_integer(const Value& v) { return v.is(Kind::kInt); }
bool is_float(const Value& v) { return v.is(Kind::kFloat); }
bool is_number(const Value& v) { return v.is_number(); }
bool is_string(const Value& v) { return v.is_text(); }
bool is_mapping(const Value& v) { return v.is(Kind::kDict); }
bool is_escaped(const Value& v) { return v.is_text() && v.text().markup; }
bool is_sequence(const Value& v) { return length_of(v).has_value() && !v.is(Kind::kView); }
bool is_callable(const Value& v) {
  constexpr std::array kCallable = {Kind::kMacro, Kind::kMethod, Kind::kFunction,
                                    Kind::kLoop,  Kind::kJoiner, Kind::kUndefined};
  return std::find(kCallable.begin(), kCallable.end(), v.kind()) != kCallable.end();
}

bool is_divisible(Interpreter& in, const Value& value, int64_t by, int64_t rest) {
  const Value result = arithmetic(in, Operator::kModulo, value, Value::integer(by));
  return equal(in.budget(), result, Value::integer(rest));
}

template <int64_t kRest>
bool parity_test(Interpreter& in, const Value& value, const Args& args) {
  Bound("the test", args, {});
  return is_divisible(in, value, 2, kRest);
}

bool divisibleby_test(Interpreter& in, const Value& value, const Args& args) {
  const Bound bound("divisibleby", args, {"num"}, 1);
  return equal(in.budget(), arithmetic(in, Operator::kModulo, value, bound[0]), Value::integer(0));
}

template <Operator kOp>
bool compare_test(Interpreter& in, const Value& value, const Args& args) {
  const Bound bound("the test", args, {"other"}, 1);
  return compare(in, kOp, value, bound[0]);
}

bool sameas_test(Interpreter&, const Value& value, const Args& args) {
  const Bound bound("sameas", args, {"other"}, 1);
  return identical(value, bound[0]);
}

// str(value).islower() and isupper().
template <bool kUpper>
bool case_test(Interpreter& in, const Value& value, const Args& args) {
  Bound("the test", args, {});
  const MethodEntry* method = find_text_method(kUpper ? "isupper" : "islower");
  return truth(method->call(in, to_text(in.budget(), value), {}));
}

bool filter_test(Interpreter&, const Value& value, const Args& args) {
  Bound("filter", args, {});
  return value.is_text() && find_filter(value.text().view) != nullptr;
}

bool test_test(Interpreter&, const Value& value, const Args& args) {
  Bound("test", args, {});
  return value.is_text() && find_test(value.text().view) != nullptr;
}

constexpr std::array kTests = {
    TestEntry{"odd", parity_test<1>},
    TestEntry{"even", parity_test<0>},
    TestEntry{"divisibleby", divisibleby_test},
    TestEntry{"defined", simple_test<is_defined>},
    TestEntry{"undefined", simple_test<is_undefined>},
    TestEntry{"filter", filter_test},
    TestEntry{"test", test_test},
    TestEntry{"none", simple_test<is_none>},
    TestEntry{"boolean", simple_test<is_boolean>},
    TestEntry{"false", simple_test<is_false>},
    TestEntry{"true", simple_test<is_true>},
    TestEntry{"integer", simple_test<is_integer>},
    TestEntry{"float", simple_test<is_float>},
    TestEntry{"lower", case_test<false>},
    TestEntry{"upper", case_test<true>},
    TestEntry{"string", simple_test<is_string>},
    TestEntry{"mapping", simple_test<is_mapping>},
    TestEntry{"number", simple_test<is_number>},
    TestEntry{"sequence", simple_test<is_sequence>},
    TestEntry{"iterable", simple_test<is_iterable>},
    TestEntry{"callable", simple_test<is_callable>},
    TestEntry{"sameas", sameas_test},
    TestEntry{"escaped", simple_test<is_escaped>},
    TestEntry{"in", compare_test<Operator::kIn>},
    TestEntry{"==", compare_test<Operator::kEqual>},
    TestEntry{"eq", compare_test<Operator::kEqual>},
    TestEntry{"equalto", compare_test<Operator::kEqual>},
    TestEntry{"!=", compare_test<Operator::kNotEqual>},
    TestEntry{"ne", compare_test<Operator::kNotEqual>},
    TestEntry{">", compare_test<Operator::kGreater>},
    TestEntry{"gt", compare_test<Operator::kGreater>},
    TestEntry{"greaterthan", compare_test<Operator::kGreater>},
    TestEntry{">=", compare_test<Operator::kGreaterEqual>},
    TestEntry{"ge", compare_test<Operator::kGreaterEqual>},
    TestEntry{"<", compare_test<Operator::kLess>},
    TestEntry{"lt", compare_test<Operator::kLess>},
    TestEntry{"lessthan", compare_test<Operator::kLess>},
    TestEntry{"<=", compare_test<Operator::kLessEqual>},
    TestEntry{"le", compare_test<Operator::kLessEqual>},
};

}  // namespace

const TestEntry* find_test(std::string_view name) {
  const auto* at =
      std::find_if(kTests.begin(), kTests.end(), [&](const TestEntry& entry) { return entry.name == name; });
  return at == kTests.end() ? nullptr : at;
}

}  // namespace idefics::jinja
