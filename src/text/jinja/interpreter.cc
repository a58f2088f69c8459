#include "text/jinja/interpreter.h"

#include <fmt/format.h>

#include <algorithm>

#include "text/jinja/filters.h"
#include "text/jinja/iterate.h"
#include "text/jinja/methods.h"
#include "text/jinja/operators.h"
#include "text/jinja/tests.h"

namespace idefics::jinja {
namespace {

// Of one call. Arguments are not charged to the budget's memory, and calls nest.
constexpr size_t kMaxArguments = 2048;

template <typename T>
const T& as(const Statement& statement) {
  return static_cast<const T&>(statement);
}
template <typename T>
const T& as(const Expr& expr) {
  return static_cast<const T&>(expr);
}

}  // namespace

// --- scopes ---

void Variables::set(std::string_view name, std::optional<Value> value) {
  for (auto& [key, old] : entries) {
    if (key == name) {
      old = std::move(value);
      return;
    }
  }
  entries.emplace_back(name, std::move(value));
}

const std::optional<Value>* Variables::find(std::string_view name) const {
  for (const auto& [key, value] : entries) {
    if (key == name) return &value;
  }
  return nullptr;
}

// A scope inside another one. When a macro was made in it, the interpreter keeps it for that macro.
class Interpreter::NewScope {
 public:
  NewScope(Interpreter& in, const Variables* outer) : in_(in), variables_(std::make_unique<Variables>()) {
    variables_->outer = outer;
  }
  NewScope(const NewScope&) = delete;
  NewScope& operator=(const NewScope&) = delete;
  ~NewScope() {
    if (variables_->captured) in_.kept_scopes_.push_back(std::move(variables_));  // capture() made room
  }
  Variables& operator*() const { return *variables_; }
  Variables* operator->() const { return variables_.get(); }
  void prepare(const Body& body) const {
    in_.budget_.work(body.unset.size());
    for (const std::string& name : body.unset) variables_->entries.emplace_back(name, std::nullopt);
  }

 private:
  Interpreter& in_;
  std::unique_ptr<Variables> variables_;
};

// Lets pass the items of a loop for which its condition holds. Lives no longer than its loop runs.
class Interpreter::ConditionIterator final : public Iterator {
 public:
  explicit ConditionIterator(Budget* budget) : Iterator(budget) {}
  void start(std::shared_ptr<Iterator> items, const ForStatement* statement, const Variables* outer) {
    items_ = std::move(items);
    statement_ = statement;
    outer_ = outer;
  }
  bool next(Interpreter& in, Value& out) override {
    Nesting nesting(in.budget_);
    while (items_->next(in, out)) {
      in.budget_.step();
      NewScope scope(in, outer_);
      in.assign(statement_->target, out, *scope);
      if (truth(in.eval(*statement_->condition, *scope))) return true;
    }
    return false;
  }

 private:
  std::shared_ptr<Iterator> items_;
  const ForStatement* statement_ = nullptr;
  const Variables* outer_ = nullptr;
};

class Interpreter::CallGuard {
 public:
  explicit CallGuard(Interpreter& in) : in_(in) {
    if (in.calls_ >= in.budget_.limits().depth) {
      fail(fmt::format("macros and recursive loops call one another more than {} levels deep",
                       in.budget_.limits().depth));
    }
    ++in.calls_;
  }
  CallGuard(const CallGuard&) = delete;
  CallGuard& operator=(const CallGuard&) = delete;
  ~CallGuard() { --in_.calls_; }

 private:
  Interpreter& in_;
};

Interpreter::Interpreter(const json::object& variables, std::span<const std::string> trusted, const Limits& limits,
                         const Clock& clock)
    : budget_(limits), variables_(variables), trusted_(trusted), clock_(clock), kept_charge_(&budget_) {}

// Namespaces and scopes can hold one another in circles, which are cut here.
Interpreter::~Interpreter() {
  for (const auto& scope : kept_scopes_) scope->entries.clear();
  for (const auto& ns : kept_namespaces_) ns->attributes.clear();
}

Interpreter::Result Interpreter::run(const Body& root) {
  Result result;
  try {
    NewScope scope(*this, nullptr);
    scope.prepare(root);
    TextBuilder out(budget_);
    root_ = &*scope;
    root_out_ = &out;
    run(root.statements, *scope, out);
    result.untrusted = out.taint().ranges();
    result.text = out.release();
  } catch (const Error& e) {
    throw e.with_context(fmt::format("line {}", line_));
  }
  result.generation = std::move(generation_);
  return result;
}

// --- statements ---

Interpreter::Flow Interpreter::run(const std::vector<StatementPtr>& statements, Variables& scope, TextBuilder& out) {
  Nesting nesting(budget_);
  for (const auto& statement : statements) {
    budget_.step();
    line_ = statement->line;
    const Flow flow = run(*statement, scope, out);
    if (flow != Flow::kNext) return flow;
  }
  return Flow::kNext;
}

Interpreter::Flow Interpreter::run(const Statement& s, Variables& scope, TextBuilder& out) {
  switch (s.kind) {
    case StatementKind::kText: out.append(as<TextStatement>(s).text, false); break;
    case StatementKind::kPrint: append_str(out, eval(*as<PrintStatement>(s).value, scope)); break;
    case StatementKind::kIf: return run_if(as<IfStatement>(s), scope, out);
    case StatementKind::kFor: {
      const auto& loop = as<ForStatement>(s);
      return run_for(loop, eval(*loop.iterable, scope), 0, scope, out);
    }
    case StatementKind::kSet: assign(as<SetStatement>(s).target, eval(*as<SetStatement>(s).value, scope), scope); break;
    case StatementKind::kSetBlock: return run_set_block(as<SetBlockStatement>(s), scope);
    case StatementKind::kMacro: {
      const Routine& routine = as<MacroStatement>(s).routine;
      scope.set(routine.name, make_macro(routine, scope));
      break;
    }
    case StatementKind::kCallBlock: run_call_block(as<CallBlockStatement>(s), scope, out); break;
    case StatementKind::kFilterBlock: return run_filter_block(as<FilterBlockStatement>(s), scope, out);
    case StatementKind::kWith: return run_with(as<WithStatement>(s), scope, out);
    case StatementKind::kGeneration: run_generation(as<BodyStatement>(s), scope, out); break;
    case StatementKind::kBlock: {
      const auto& block = as<BodyStatement>(s);
      run_body(block.body, block.is_scoped ? &scope : root_, out);
      break;
    }
    case StatementKind::kAutoescape: {
      const auto& block = as<BodyStatement>(s);
      if (truth(eval(*block.value, scope))) fail("autoescape is not supported: a prompt is no HTML");
      return run_body(block.body, &scope, out);
    }
    case StatementKind::kBreak: return Flow::kBreak;
    case StatementKind::kContinue: return Flow::kContinue;
    case StatementKind::kNeedsLoader:
      fail(fmt::format("'{}' needs other templates, and there are none", as<PlainStatement>(s).name));
  }
  if (&out == root_out_ && out.size() > budget_.limits().output_bytes) {
    fail(fmt::format("the text grows beyond {} bytes", budget_.limits().output_bytes));
  }
  return Flow::kNext;
}

Interpreter::Flow Interpreter::run_if(const IfStatement& s, Variables& scope, TextBuilder& out) {
  for (const auto& branch : s.branches) {
    if (branch.condition == nullptr || truth(eval(*branch.condition, scope))) return run(branch.statements, scope, out);
  }
  return Flow::kNext;
}

Interpreter::Flow Interpreter::run_body(const Body& body, const Variables* outer, TextBuilder& out) {
  NewScope scope(*this, outer);
  scope.prepare(body);
  return run(body.statements, *scope, out);
}

Interpreter::Flow Interpreter::run_for(const ForStatement& s, const Value& iterable, int64_t depth0,
                                       const Variables& outer, TextBuilder& out) {
  auto loop = make_object<Loop>(budget_);
  loop->items = iterate(*this, iterable);
  loop->depth0 = depth0;
  if (s.condition != nullptr) {
    auto filter = make_object<ConditionIterator>(budget_);
    filter->start(std::move(loop->items), &s, &outer);
    loop->items = std::move(filter);
  } else {
    loop->length = length_of(iterable);
  }
  if (s.recursive) {
    loop->statement = &s;
    loop->scope = &outer;
  }
  // However the loop ends, nobody can go on with it, and what it holds cannot hold it in turn.
  struct Ending {
    Loop& loop;
    ~Ending() {
      loop.items.reset();
      loop.before = loop.current = loop.after = loop.changed = std::nullopt;
      loop.statement = nullptr;
    }
  } ending{*loop};
  if (run_iterations(s, Value(Kind::kLoop, loop), outer, out)) return Flow::kNext;
  return run_body(s.otherwise, &outer, out);
}

// False when there was nothing to walk over.
bool Interpreter::run_iterations(const ForStatement& s, const Value& loop, const Variables& outer, TextBuilder& out) {
  bool any = false;
  while (advance(loop.as<Loop>())) {
    budget_.step();
    any = true;
    NewScope scope(*this, &outer);
    scope->entries.reserve(4);
    scope->set("loop", loop);
    assign(s.target, *loop.as<Loop>().current, *scope);
    scope.prepare(s.body);
    if (run(s.body.statements, *scope, out) == Flow::kBreak) break;
  }
  return any;
}

bool Interpreter::peek(Loop& loop) {
  if (loop.after.has_value()) return true;
  Value next;
  if (loop.items == nullptr || !loop.items->next(*this, next)) return false;
  loop.after = std::move(next);
  return true;
}

bool Interpreter::advance(Loop& loop) {
  if (!peek(loop)) return false;
  loop.before = std::move(loop.current);
  loop.current = std::exchange(loop.after, std::nullopt);
  ++loop.index0;
  return true;
}

size_t Interpreter::loop_length(Loop& loop) {
  if (!loop.length.has_value()) {
    ListBuilder rest(budget_);
    for (Value item; loop.items != nullptr && loop.items->next(*this, item);) rest.push(std::move(item));
    loop.length = rest.size() + static_cast<size_t>(loop.index0 + 1) + (loop.after.has_value() ? 1 : 0);
    loop.items = iterate(*this, rest.finish());
  }
  return *loop.length;
}

Interpreter::Flow Interpreter::run_set_block(const SetBlockStatement& s, Variables& scope) {
  NewScope inner(*this, &scope);
  inner.prepare(s.body);
  TextBuilder text(budget_);
  if (const Flow flow = run(s.body.statements, *inner, text); flow != Flow::kNext) return flow;
  assign(s.target, filtered(s.filters, text.finish(), *inner), scope);
  return Flow::kNext;
}

Interpreter::Flow Interpreter::run_filter_block(const FilterBlockStatement& s, const Variables& outer,
                                                TextBuilder& out) {
  NewScope inner(*this, &outer);
  inner.prepare(s.body);
  TextBuilder text(budget_);
  if (const Flow flow = run(s.body.statements, *inner, text); flow != Flow::kNext) return flow;
  append_str(out, filtered(s.filters, text.finish(), *inner));
  return Flow::kNext;
}

Value Interpreter::filtered(const std::vector<Step>& filters, Value value, const Variables& scope) {
  for (const Step& step : filters) value = eval_step(step, value, scope);
  return value;
}

Interpreter::Flow Interpreter::run_with(const WithStatement& s, const Variables& outer, TextBuilder& out) {
  NewScope inner(*this, &outer);
  for (const auto& [target, value] : s.assignments) assign(target, eval(*value, outer), *inner);
  inner.prepare(s.body);
  return run(s.body.statements, *inner, out);
}

void Interpreter::run_call_block(const CallBlockStatement& s, const Variables& scope, TextBuilder& out) {
  const PostfixExpr& call_expr = *s.call;
  const Value callee = eval_steps(call_expr, call_expr.steps.size() - 1, scope);
  Args args = eval_arguments(call_expr.steps.back(), scope);
  if (args.find("caller") != nullptr) fail("a call block passes its own 'caller'");
  args.named.emplace_back(text("caller"), make_macro(s.caller, scope));
  append_str(out, call(callee, std::move(args)));
}

// The range is counted from the start of the whole text, as the reference counts: inside a macro, whose text is not
// there yet, from where its text would begin.
void Interpreter::run_generation(const BodyStatement& s, const Variables& scope, TextBuilder& out) {
  TextBuilder inner(budget_);
  run_body(s.body, &scope, inner);
  generation_.push_back({root_out_->size(), root_out_->size() + inner.size()});
  out.append(inner.finish().text());
}

void Interpreter::assign(const Target& target, const Value& value, Variables& scope) {
  if (target.kind == Target::Kind::kName) {
    budget_.work(scope.entries.size());
    return scope.set(target.name, value);
  }
  if (target.kind == Target::Kind::kAttribute) return assign_attribute(target, value, scope);
  if (value.is_sequence() && value.items().size() == target.items.size()) {
    for (size_t i = 0; i < target.items.size(); ++i) assign(target.items[i], value.items()[i], scope);
    return;
  }
  const auto items = iterate(*this, value);
  Value item;
  for (const Target& part : target.items) {
    if (!items->next(*this, item)) fail(fmt::format("too few values to give to {} names", target.items.size()));
    assign(part, item, scope);
  }
  if (items->next(*this, item)) fail(fmt::format("too many values to give to {} names", target.items.size()));
}

void Interpreter::assign_attribute(const Target& target, const Value& value, const Variables& scope) {
  const Value ns = look_up(target.name, scope);
  if (!ns.is(Kind::kNamespace))
    fail(fmt::format("cannot set an attribute of {}: it is no namespace", quote(target.name)));
  budget_.work(ns.as<Namespace>().attributes.size());
  ns.as<Namespace>().set(target.attribute, value);
}

Value Interpreter::make_macro(const Routine& routine, const Variables& scope) {
  auto macro = make_object<Macro>(budget_);
  macro->routine = &routine;
  macro->scope = &scope;
  capture(scope);
  return Value(Kind::kMacro, std::move(macro));
}

void Interpreter::capture(const Variables& scope) {
  for (const Variables* s = &scope; s != nullptr && !s->captured; s = s->outer) {
    s->captured = true;
    ++num_captured_;
    kept_charge_.grow_to(num_captured_ * (sizeof(Variables) + 128));
    if (kept_scopes_.capacity() < num_captured_) kept_scopes_.reserve(2 * num_captured_);
  }
}

Value Interpreter::keep(std::shared_ptr<Namespace> ns) {
  kept_namespaces_.push_back(ns);
  return Value(Kind::kNamespace, std::move(ns));
}

// --- names ---

Value Interpreter::look_up(std::string_view name, const Variables& scope) {
  for (const Variables* s = &scope; s != nullptr; s = s->outer) {
    budget_.work(s->entries.size());
    if (const auto* found = s->find(name)) {
      return found->has_value() ? **found : Value::undefined(budget_, fmt::format("{} is undefined", quote(name)));
    }
  }
  return look_up_outside(name);
}

Value Interpreter::look_up_outside(std::string_view name) {
  budget_.work(outside_.size());
  for (const auto& [key, value] : outside_) {
    if (key == name) return value;
  }
  if (const auto* found = variables_.if_contains(name)) {
    const bool tainted = std::find(trusted_.begin(), trusted_.end(), name) == trusted_.end();
    outside_.emplace_back(name, convert(*found, tainted, 0));
    return outside_.back().second;
  }
  if (const FunctionEntry* entry = find_function(name)) {
    auto function = make_object<Function>(budget_);
    function->entry = entry;
    outside_.emplace_back(entry->name, Value(Kind::kFunction, std::move(function)));
    return outside_.back().second;
  }
  return Value::undefined(budget_, fmt::format("{} is undefined", quote(name)));
}

Value Interpreter::convert(const json::value& value, bool tainted, int depth) {
  if (depth >= kMaxValueDepth) fail("a variable nests too deeply");
  budget_.work(16);
  switch (value.kind()) {
    case json::kind::null: return Value();
    case json::kind::bool_: return Value::boolean(value.get_bool()).with_taint(tainted);
    case json::kind::int64: return Value::integer(value.get_int64(), tainted);
    case json::kind::uint64:
      if (value.get_uint64() > uint64_t{INT64_MAX}) fail("a whole number in the variables goes beyond 64 bits");
      return Value::integer(static_cast<int64_t>(value.get_uint64()), tainted);
    case json::kind::double_: return Value::real(value.get_double(), tainted);
    case json::kind::string:
      budget_.work(value.get_string().size());
      return borrow_text(budget_, value.get_string(), tainted);
    case json::kind::array: {
      ListBuilder out(budget_);
      out.reserve(value.get_array().size());
      for (const auto& item : value.get_array()) out.push(convert(item, tainted, depth + 1));
      return out.finish();
    }
    case json::kind::object: {
      auto dict = new_dict(budget_);
      for (const auto& [key, item] : value.get_object()) {
        dict->set(borrow_text(budget_, key, tainted), convert(item, tainted, depth + 1));
      }
      return finish_dict(budget_, std::move(dict));
    }
  }
  return Value();
}

// --- expressions ---

Value Interpreter::eval(const Expr& expr, const Variables& scope) {
  Nesting nesting(budget_);
  budget_.step();
  switch (expr.kind) {
    case ExprKind::kConstant: return as<ConstantExpr>(expr).value;
    case ExprKind::kName: return look_up(as<NameExpr>(expr).name, scope);
    case ExprKind::kTuple: return eval_list(as<ListExpr>(expr), Kind::kTuple, scope);
    case ExprKind::kList: return eval_list(as<ListExpr>(expr), Kind::kList, scope);
    case ExprKind::kDict: return eval_dict(as<DictExpr>(expr), scope);
    case ExprKind::kArithmetic: return eval_arithmetic(as<ChainExpr>(expr), scope);
    case ExprKind::kConcat: return eval_concat(as<ListExpr>(expr), scope);
    case ExprKind::kAnd:
    case ExprKind::kOr: return eval_logic(as<ListExpr>(expr), scope);
    case ExprKind::kNot: return Value::boolean(!truth(eval(*as<UnaryExpr>(expr).operand, scope)));
    case ExprKind::kNegative: return negative(eval(*as<UnaryExpr>(expr).operand, scope));
    case ExprKind::kPositive: return positive(eval(*as<UnaryExpr>(expr).operand, scope));
    case ExprKind::kCompare: return eval_compare(as<ChainExpr>(expr), scope);
    case ExprKind::kConditional: return eval_conditional(as<ConditionalExpr>(expr), scope);
    case ExprKind::kPostfix: return eval_steps(as<PostfixExpr>(expr), as<PostfixExpr>(expr).steps.size(), scope);
  }
  return Value();
}

Value Interpreter::eval_list(const ListExpr& expr, Kind kind, const Variables& scope) {
  ListBuilder out(budget_);
  for (const auto& item : expr.items) out.push(eval(*item, scope));
  return out.finish(kind);
}

Value Interpreter::eval_dict(const DictExpr& expr, const Variables& scope) {
  auto dict = new_dict(budget_);
  for (const auto& [key, value] : expr.entries) {
    const Value k = eval(*key, scope);
    dict->set(k, eval(*value, scope));
  }
  return finish_dict(budget_, std::move(dict));
}

Value Interpreter::eval_concat(const ListExpr& expr, const Variables& scope) {
  TextBuilder out(budget_);
  for (const auto& item : expr.items) append_str(out, eval(*item, scope));
  return out.finish();
}

Value Interpreter::eval_logic(const ListExpr& expr, const Variables& scope) {
  const bool stops_at = expr.kind == ExprKind::kOr;
  Value value;
  for (const auto& item : expr.items) {
    value = eval(*item, scope);
    if (truth(value) == stops_at) break;
  }
  return value;
}

Value Interpreter::eval_arithmetic(const ChainExpr& expr, const Variables& scope) {
  Value value = eval(*expr.first, scope);
  for (const auto& [op, operand] : expr.rest) value = arithmetic(*this, op, value, eval(*operand, scope));
  return value;
}

Value Interpreter::eval_compare(const ChainExpr& expr, const Variables& scope) {
  Value left = eval(*expr.first, scope);
  for (const auto& [op, operand] : expr.rest) {
    Value right = eval(*operand, scope);
    if (!compare(*this, op, left, right)) return Value::boolean(false);
    left = std::move(right);
  }
  return Value::boolean(true);
}

Value Interpreter::eval_conditional(const ConditionalExpr& expr, const Variables& scope) {
  if (truth(eval(*expr.condition, scope))) return eval(*expr.then, scope);
  if (expr.otherwise != nullptr) return eval(*expr.otherwise, scope);
  return Value::undefined(budget_, "a conditional expression without 'else' was false");
}

// The base and the first `count` steps.
Value Interpreter::eval_steps(const PostfixExpr& expr, size_t count, const Variables& scope) {
  Value value = eval(*expr.base, scope);
  for (size_t i = 0; i < count; ++i) value = eval_step(expr.steps[i], value, scope);
  return value;
}

Value Interpreter::eval_step(const Step& step, const Value& value, const Variables& scope) {
  budget_.step();
  line_ = step.line;
  const auto bound = [&](const ExprPtr& expr) { return expr == nullptr ? Value() : eval(*expr, scope); };
  switch (step.kind) {
    case Step::Kind::kAttribute: return get_attribute(*this, value, step.name);
    case Step::Kind::kItem: return get_item(*this, value, eval(*step.index[0], scope));
    case Step::Kind::kSlice: {
      const Value from = bound(step.index[0]), to = bound(step.index[1]), by = bound(step.index[2]);
      return get_slice(*this, value, from, to, by);
    }
    case Step::Kind::kCall: return call(value, eval_arguments(step, scope));
    case Step::Kind::kFilter: return apply(step.filter, step.name, value, eval_arguments(step, scope));
    case Step::Kind::kTest:
      return Value::boolean(apply(step.test, step.name, value, eval_arguments(step, scope)) != step.negated);
  }
  return Value();
}

Args Interpreter::eval_arguments(const Step& step, const Variables& scope) {
  Args out;
  if (step.arguments == nullptr) return out;
  const CallArguments& arguments = *step.arguments;
  for (const auto& value : arguments.positional) out.positional.push_back(eval(*value, scope));
  for (const auto& [name, value] : arguments.named) out.named.emplace_back(name, eval(*value, scope));
  if (arguments.star != nullptr) {
    for (Value& item : to_items(*this, eval(*arguments.star, scope))) out.positional.push_back(std::move(item));
    if (out.positional.size() > kMaxArguments) fail("a call with too many arguments");
  }
  if (arguments.star_star == nullptr) return out;
  const Value more = eval(*arguments.star_star, scope);
  if (!more.is(Kind::kDict)) fail("what stands behind ** must be a dict");
  if (more.dict().entries.size() > kMaxArguments) fail("a call with too many arguments");
  for (const auto& [name, value] : more.dict().entries) {
    budget_.work(out.named.size());
    if (out.find(need_text(name, "a name of an argument").view) != nullptr) fail("an argument is given twice");
    out.named.emplace_back(name, value);
  }
  return out;
}

// --- calls ---

Value Interpreter::apply(const FilterEntry* filter, std::string_view name, const Value& value, const Args& args) {
  if (filter == nullptr) fail(fmt::format("there is no filter {}", quote(name)));
  return filter->apply(*this, value, args);
}

bool Interpreter::apply(const TestEntry* test, std::string_view name, const Value& value, const Args& args) {
  if (test == nullptr) fail(fmt::format("there is no test {}", quote(name)));
  return test->apply(*this, value, args);
}

Value Interpreter::call(const Value& callee, Args args) {
  Nesting nesting(budget_);
  budget_.step();
  switch (callee.kind()) {
    case Kind::kMacro: return call_macro(callee.as<Macro>(), args);
    case Kind::kMethod: return callee.as<Method>().entry->call(*this, callee.as<Method>().self, args);
    case Kind::kFunction: return callee.as<Function>().entry->call(*this, args);
    case Kind::kLoop: return call_loop(callee.as<Loop>(), args);
    case Kind::kJoiner: {
      Joiner& joiner = callee.as<Joiner>();
      Bound("a joiner", args, {});
      return std::exchange(joiner.used, true) ? joiner.separator : text("");
    }
    case Kind::kUndefined: fail(callee.why_undefined());
    default: fail(fmt::format("a value of type {} cannot be called", type_name(callee)));
  }
}

Value Interpreter::call_macro(const Macro& macro, Args& args) {
  CallGuard guard(*this);
  NewScope scope(*this, macro.scope);
  bind_parameters(*macro.routine, args, *scope);
  scope.prepare(macro.routine->body);
  TextBuilder out(budget_);
  run(macro.routine->body.statements, *scope, out);
  return out.finish();
}

// Positional arguments first, then named ones, then defaults, which may use the parameters before them. What is left
// over goes to `varargs` and `kwargs` if the macro uses those.
void Interpreter::bind_parameters(const Routine& routine, Args& args, Variables& scope) {
  const auto take_named = [&](std::string_view name) -> std::optional<Value> {
    const auto at =
        std::find_if(args.named.begin(), args.named.end(), [&](const auto& n) { return n.first.text().view == name; });
    if (at == args.named.end()) return std::nullopt;
    Value value = std::move(at->second);
    args.named.erase(at);
    return value;
  };
  const size_t count = routine.parameters.size();
  std::vector<std::optional<Value>> given(count);
  for (size_t i = 0; i < count; ++i) {
    given[i] =
        i < args.positional.size() ? std::optional<Value>(args.positional[i]) : take_named(routine.parameters[i].name);
  }
  if (routine.uses_caller) {
    const auto caller = take_named("caller");
    scope.set("caller", caller.has_value() ? *caller : Value::undefined(budget_, "no caller defined"));
  }
  if (routine.uses_kwargs) {
    auto rest = new_dict(budget_);
    for (auto& [name, value] : args.named) rest->set(name, std::move(value));
    scope.set("kwargs", finish_dict(budget_, std::move(rest)));
  } else if (!args.named.empty()) {
    fail(fmt::format("macro {} has no parameter {}", quote(routine.name), quote(args.named.front().first.text().view)));
  }
  if (routine.uses_varargs) {
    std::vector<Value> rest;
    for (size_t i = count; i < args.positional.size(); ++i) rest.push_back(args.positional[i]);
    scope.set("varargs", make_list(budget_, std::move(rest), Kind::kTuple));
  } else if (args.positional.size() > count) {
    fail(
        fmt::format("macro {} takes at most {} arguments, got {}", quote(routine.name), count, args.positional.size()));
  }
  for (size_t i = 0; i < count; ++i) scope.set(routine.parameters[i].name, given[i]);
  for (size_t i = 0; i < count; ++i) {
    const auto& parameter = routine.parameters[i];
    if (given[i].has_value()) continue;
    scope.set(parameter.name,
              parameter.standard != nullptr
                  ? eval(*parameter.standard, scope)
                  : Value::undefined(budget_, fmt::format("parameter {} was not given", quote(parameter.name))));
  }
}

Value Interpreter::call_loop(const Loop& loop, const Args& args) {
  const Bound bound("loop", args, {"iterable"}, 1);
  if (loop.statement == nullptr) fail("loop(...) needs a loop marked 'recursive'");
  CallGuard guard(*this);
  TextBuilder out(budget_);
  run_for(*loop.statement, bound[0], loop.depth0 + 1, *loop.scope, out);
  return out.finish();
}

}  // namespace idefics::jinja
