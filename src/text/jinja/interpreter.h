// Runs a parsed template once.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/json.h"
#include "text/jinja/arguments.h"
#include "text/jinja/ast.h"
#include "text/jinja/clock.h"

namespace idefics::jinja {

// The variables of one scope while it is alive. Lookups go outwards, then to the variables of the request, then to the
// global functions.
struct Variables {
  const Variables* outer = nullptr;
  std::vector<std::pair<std::string_view, std::optional<Value>>> entries;  // nothing: undefined whatever is outside
  mutable bool captured = false;                                           // a macro made here may be called later

  void set(std::string_view name, std::optional<Value> value);
  const std::optional<Value>* find(std::string_view name) const;
};

// A macro, or the body of a call block.
struct Macro final : Object {
  using Object::Object;
  const Routine* routine = nullptr;
  const Variables* scope = nullptr;  // where it was made; the interpreter keeps it
};

// The `loop` of a for statement.
struct Loop final : Object {
  using Object::Object;
  std::shared_ptr<Iterator> items;  // null once the loop has ended
  std::optional<size_t> length;
  int64_t index0 = -1;
  int64_t depth0 = 0;
  std::optional<Value> before, current, after, changed;
  const ForStatement* statement = nullptr;  // set while a recursive loop runs
  const Variables* scope = nullptr;
};

struct FunctionEntry {
  std::string_view name;
  Value (*call)(Interpreter& in, const Args& args);
};
struct Function final : Object {
  using Object::Object;
  const FunctionEntry* entry = nullptr;
};
// The global function of a name, or null. In globals.cc.
const FunctionEntry* find_function(std::string_view name);

class Interpreter {
 public:
  // Text in `variables` counts as coming from outside, except that of the names in `trusted`. All arguments must
  // outlive the interpreter.
  Interpreter(const json::object& variables, std::span<const std::string> trusted, const Limits& limits,
              const Clock& clock);
  ~Interpreter();
  Interpreter(const Interpreter&) = delete;
  Interpreter& operator=(const Interpreter&) = delete;

  struct Result {
    std::string text;
    std::vector<TextRange> untrusted, generation;
  };
  // Runs the template; once. Errors: kTemplateError with the line.
  Result run(const Body& root);

  // --- for filters, methods and functions ---

  Budget& budget() { return budget_; }
  CivilTime now() const { return clock_(); }
  // Calls a macro, method, function, loop. Errors: not callable.
  Value call(const Value& callee, Args args);
  Value apply(const FilterEntry* filter, std::string_view name, const Value& value, const Args& args);
  bool apply(const TestEntry* test, std::string_view name, const Value& value, const Args& args);
  Value text(std::string_view text, bool tainted = false) { return make_text(&budget_, text, tainted); }
  // The namespace lives until the end of the rendering: it may hold itself.
  Value keep(std::shared_ptr<Namespace> ns);
  // The length of a loop, which may have to walk its iterator.
  size_t loop_length(Loop& loop);
  bool peek(Loop& loop);

 private:
  enum class Flow { kNext, kBreak, kContinue };
  class NewScope;
  class ConditionIterator;

  // Statements
  Flow run(const std::vector<StatementPtr>& statements, Variables& scope, TextBuilder& out);
  Flow run(const Statement& statement, Variables& scope, TextBuilder& out);
  Flow run_if(const IfStatement& s, Variables& scope, TextBuilder& out);
  Flow run_for(const ForStatement& s, const Value& iterable, int64_t depth0, const Variables& outer, TextBuilder& out);
  bool run_iterations(const ForStatement& s, const Value& loop, const Variables& outer, TextBuilder& out);
  bool advance(Loop& loop);
  Flow run_body(const Body& body, const Variables* outer, TextBuilder& out);
  Flow run_set_block(const SetBlockStatement& s, Variables& scope);
  Flow run_filter_block(const FilterBlockStatement& s, const Variables& outer, TextBuilder& out);
  Flow run_with(const WithStatement& s, const Variables& outer, TextBuilder& out);
  void run_call_block(const CallBlockStatement& s, const Variables& scope, TextBuilder& out);
  void run_generation(const BodyStatement& s, const Variables& scope, TextBuilder& out);
  Value filtered(const std::vector<Step>& filters, Value value, const Variables& scope);
  void assign(const Target& target, const Value& value, Variables& scope);
  void assign_attribute(const Target& target, const Value& value, const Variables& scope);
  Value make_macro(const Routine& routine, const Variables& scope);
  void capture(const Variables& scope);

  // Expressions
  Value eval(const Expr& expr, const Variables& scope);
  Value eval_list(const ListExpr& expr, Kind kind, const Variables& scope);
  Value eval_dict(const DictExpr& expr, const Variables& scope);
  Value eval_concat(const ListExpr& expr, const Variables& scope);
  Value eval_logic(const ListExpr& expr, const Variables& scope);
  Value eval_arithmetic(const ChainExpr& expr, const Variables& scope);
  Value eval_compare(const ChainExpr& expr, const Variables& scope);
  Value eval_conditional(const ConditionalExpr& expr, const Variables& scope);
  Value eval_steps(const PostfixExpr& expr, size_t count, const Variables& scope);
  Value eval_step(const Step& step, const Value& value, const Variables& scope);
  Args eval_arguments(const Step& step, const Variables& scope);
  Value look_up(std::string_view name, const Variables& scope);
  Value look_up_outside(std::string_view name);

  // Calls
  Value call_macro(const Macro& macro, Args& args);
  void bind_parameters(const Routine& routine, Args& args, Variables& scope);
  Value call_loop(const Loop& loop, const Args& args);
  class CallGuard;

  Value convert(const json::value& value, bool tainted, int depth);

  Budget budget_;
  const json::object& variables_;
  const std::span<const std::string> trusted_;
  const Clock& clock_;
  std::vector<std::pair<std::string_view, Value>> outside_;  // variables and functions looked up so far
  std::vector<std::unique_ptr<Variables>> kept_scopes_;      // captured by macros
  std::vector<std::shared_ptr<Namespace>> kept_namespaces_;
  size_t num_captured_ = 0;
  Charge kept_charge_;
  Variables* root_ = nullptr;
  TextBuilder* root_out_ = nullptr;
  std::vector<TextRange> generation_;
  int calls_ = 0;
  int line_ = 1;  // of the statement or step that runs
};

}  // namespace idefics::jinja
