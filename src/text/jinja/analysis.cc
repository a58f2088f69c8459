#include "text/jinja/analysis.h"

#include <fmt/format.h>

#include <algorithm>
#include <initializer_list>
#include <map>
#include <set>

#include "text/jinja/lexer.h"

namespace idefics::jinja {
namespace {

template <typename T>
const T& as(const Statement& statement) {
  return static_cast<const T&>(statement);
}
template <typename T>
T& as(Statement& statement) {
  return static_cast<T&>(statement);
}

// Calls `f` with each direct part of an expression.
template <typename F>
void for_each_argument(const Step& step, F f) {
  if (step.arguments == nullptr) return;
  for (const auto& value : step.arguments->positional) f(*value);
  for (const auto& [name, value] : step.arguments->named) f(*value);
  if (step.arguments->star != nullptr) f(*step.arguments->star);
  if (step.arguments->star_star != nullptr) f(*step.arguments->star_star);
}

template <typename F>
void for_each_part(const Expr& expr, F f) {
  switch (expr.kind) {
    case ExprKind::kConstant:
    case ExprKind::kName: return;
    case ExprKind::kTuple:
    case ExprKind::kList:
    case ExprKind::kConcat:
    case ExprKind::kAnd:
    case ExprKind::kOr:
      for (const auto& item : static_cast<const ListExpr&>(expr).items) f(*item);
      return;
    case ExprKind::kDict:
      for (const auto& [key, value] : static_cast<const DictExpr&>(expr).entries) f(*key), f(*value);
      return;
    case ExprKind::kNot:
    case ExprKind::kNegative:
    case ExprKind::kPositive: return f(*static_cast<const UnaryExpr&>(expr).operand);
    case ExprKind::kArithmetic:
    case ExprKind::kCompare: {
      const auto& chain = static_cast<const ChainExpr&>(expr);
      f(*chain.first);
      for (const auto& [op, operand] : chain.rest) f(*operand);
      return;
    }
    case ExprKind::kConditional: {
      const auto& conditional = static_cast<const ConditionalExpr&>(expr);
      f(*conditional.condition), f(*conditional.then);
      if (conditional.otherwise != nullptr) f(*conditional.otherwise);
      return;
    }
    case ExprKind::kPostfix: {
      const auto& postfix = static_cast<const PostfixExpr&>(expr);
      f(*postfix.base);
      for (const Step& step : postfix.steps) {
        for (const ExprPtr& part : step.index) {
          if (part != nullptr) f(*part);
        }
        for_each_argument(step, f);
      }
      return;
    }
  }
}

// Calls `f` with every name that an expression looks up.
template <typename F>
void for_each_name(const Expr& expr, const F& f) {
  if (expr.kind == ExprKind::kName) return f(static_cast<const NameExpr&>(expr).name);
  for_each_part(expr, [&](const Expr& part) { for_each_name(part, f); });
}

template <typename F>
void for_each_name(const std::vector<Step>& filters, const F& f) {
  for (const Step& step : filters) for_each_argument(step, [&](const Expr& value) { for_each_name(value, f); });
}

template <typename F>
void for_each_target(const Target& target, const F& f) {
  if (target.kind != Target::Kind::kTuple) return f(target);
  for (const Target& item : target.items) for_each_target(item, f);
}

// --- which special parameters a macro uses ---

// Finds the names that are looked up anywhere inside before they are set, in the order of Jinja's tree.
class SpecialNames {
 public:
  explicit SpecialNames(const Body& body) { visit(body.statements); }
  bool uses(std::string_view name) const { return used_.count(name) > 0; }

 private:
  void load(const Expr* expr) {
    if (expr == nullptr) return;
    for_each_name(*expr, [this](std::string_view name) {
      if (set_.count(name) == 0) used_.insert(name);
    });
  }
  void load(const std::vector<Step>& filters) {
    for (const Step& step : filters) for_each_argument(step, [this](const Expr& value) { load(&value); });
  }
  void store(const Target& target) {
    for_each_target(target, [this](const Target& single) { set_.insert(single.name); });
  }
  void routine(const Routine& routine) {
    for (const auto& parameter : routine.parameters) set_.insert(parameter.name);
    for (const auto& parameter : routine.parameters) load(parameter.standard.get());
    visit(routine.body.statements);
  }

  void visit(const std::vector<StatementPtr>& statements) {
    for (const auto& statement : statements) visit(*statement);
  }
  void visit(const Statement& s) {
    switch (s.kind) {
      case StatementKind::kPrint: return load(as<PrintStatement>(s).value.get());
      case StatementKind::kIf:
        for (const auto& branch : as<IfStatement>(s).branches) load(branch.condition.get()), visit(branch.statements);
        return;
      case StatementKind::kFor: {
        const auto& loop = as<ForStatement>(s);
        store(loop.target);
        load(loop.iterable.get());
        visit(loop.body.statements);
        visit(loop.otherwise.statements);
        return load(loop.condition.get());
      }
      case StatementKind::kSet: store(as<SetStatement>(s).target); return load(as<SetStatement>(s).value.get());
      case StatementKind::kSetBlock: {
        const auto& set = as<SetBlockStatement>(s);
        store(set.target);
        load(set.filters);
        return visit(set.body.statements);
      }
      case StatementKind::kMacro: return routine(as<MacroStatement>(s).routine);
      case StatementKind::kCallBlock:
        load(as<CallBlockStatement>(s).call.get());
        return routine(as<CallBlockStatement>(s).caller);
      case StatementKind::kFilterBlock:
        visit(as<FilterBlockStatement>(s).body.statements);
        return load(as<FilterBlockStatement>(s).filters);
      case StatementKind::kWith:
        for (const auto& [target, value] : as<WithStatement>(s).assignments) store(target);
        for (const auto& [target, value] : as<WithStatement>(s).assignments) load(value.get());
        return visit(as<WithStatement>(s).body.statements);
      case StatementKind::kGeneration:
      case StatementKind::kAutoescape: return visit(as<BodyStatement>(s).body.statements);
      default: return;
    }
  }

  std::set<std::string_view> used_, set_;
};

// --- scopes ---

// The names of one scope as Jinja's compiler sees them. It gives each name one meaning for the whole scope. A branch of
// an `if` is a scope that holds only what differs from its base.
struct Scope {
  enum class Meaning { kParameter, kResolved, kOuter, kUndefined };
  const Scope* outer = nullptr;
  const Scope* base = nullptr;
  std::map<std::string_view, Meaning> names;
  std::set<std::string_view> stores;

  bool has(std::string_view name) const { return names.count(name) > 0 || (base != nullptr && base->has(name)); }
  bool sets(std::string_view name) const { return stores.count(name) > 0 || (base != nullptr && base->sets(name)); }
  bool outer_knows(std::string_view name) const { return outer != nullptr && outer->knows(name); }
  bool knows(std::string_view name) const { return has(name) || outer_knows(name); }

  void parameter(std::string_view name) {
    stores.insert(name);
    names[name] = Meaning::kParameter;
  }
  void load(std::string_view name) {
    if (!knows(name)) names[name] = Meaning::kResolved;
  }
  void load(const Expr* expr) {
    if (expr != nullptr) for_each_name(*expr, [this](std::string_view name) { load(name); });
  }
  void store(std::string_view name) {
    stores.insert(name);
    if (!has(name)) names[name] = outer_knows(name) ? Meaning::kOuter : Meaning::kUndefined;
  }
  void store(const Target& target) {
    for_each_target(target, [this](const Target& single) {
      single.kind == Target::Kind::kName ? store(single.name) : load(single.name);
    });
  }

  Scope branch() const {
    Scope out;
    out.outer = outer;
    out.base = this;
    return out;
  }
  // A name that only some branches set keeps the meaning it has outside.
  void merge(std::initializer_list<const Scope*> branches) {
    for (const Scope* branch : branches) {
      for (const auto& [name, meaning] : branch->names) names[name] = meaning;
    }
    for (const Scope* branch : branches) {
      for (const std::string_view name : branch->stores) {
        if (sets(name)) continue;
        names[name] = outer_knows(name) ? Meaning::kOuter : Meaning::kResolved;
      }
    }
    for (const Scope* branch : branches) stores.insert(branch->stores.begin(), branch->stores.end());
  }

  void visit(const std::vector<StatementPtr>& statements) {
    for (const auto& statement : statements) visit(*statement);
  }

  // Looks at what belongs to this scope itself; inner scopes are looked at later, when this one is complete.
  void visit(const Statement& s) {
    switch (s.kind) {
      case StatementKind::kPrint: return load(as<PrintStatement>(s).value.get());
      case StatementKind::kIf: return visit_if(as<IfStatement>(s));
      case StatementKind::kFor: return load(as<ForStatement>(s).iterable.get());
      case StatementKind::kSet: load(as<SetStatement>(s).value.get()); return store(as<SetStatement>(s).target);
      case StatementKind::kSetBlock: return store(as<SetBlockStatement>(s).target);
      case StatementKind::kMacro: return store(as<MacroStatement>(s).routine.name);
      case StatementKind::kCallBlock: return load(as<CallBlockStatement>(s).call.get());
      case StatementKind::kFilterBlock:
        return for_each_name(as<FilterBlockStatement>(s).filters, [this](std::string_view name) { load(name); });
      case StatementKind::kWith:
        for (const auto& [target, value] : as<WithStatement>(s).assignments) load(value.get());
        return;
      default: return;
    }
  }

  // Jinja keeps all `elif` branches in one scope, each an `if` of its own, beside the scopes of `if` and `else`.
  void visit_if(const IfStatement& s) {
    load(s.branches.front().condition.get());
    Scope first = branch(), middle = branch(), last = branch();
    first.visit(s.branches.front().statements);
    for (size_t i = 1; i < s.branches.size(); ++i) {
      const auto& part = s.branches[i];
      if (part.condition == nullptr) {
        last.visit(part.statements);
        continue;
      }
      middle.load(part.condition.get());
      Scope inside = middle.branch();
      inside.visit(part.statements);
      middle.merge({&inside});
    }
    merge({&first, &middle, &last});
  }
};

class Analyser {
 public:
  explicit Analyser(std::string_view where) : where_(where) {}

  void root(Body& body) {
    Scope scope;
    enter(body, scope, {});
  }

 private:
  // Where the compiler stands.
  struct Place {
    bool soft = false;        // inside `if`: unknown filters fail only when reached
    bool in_loop = false;     // break and continue have a loop to act on
    bool inside_for = false;  // anywhere below a for
  };

  void enter(Body& body, Scope& scope, Place place) {
    scope.visit(body.statements);
    for (const auto& [name, meaning] : scope.names) {
      if (meaning == Scope::Meaning::kUndefined) body.unset.emplace_back(name);
    }
    place.soft = false;
    descend(body.statements, scope, place);
  }
  void enter(Body& body, const Scope* outer, Place place) {
    Scope scope;
    scope.outer = outer;
    enter(body, scope, place);
  }

  void descend(std::vector<StatementPtr>& statements, const Scope& scope, Place place) {
    for (const auto& statement : statements) descend(*statement, scope, place);
  }

  void descend(Statement& s, const Scope& scope, Place place) {
    switch (s.kind) {
      case StatementKind::kText:
      case StatementKind::kNeedsLoader: return;
      case StatementKind::kPrint: return check(as<PrintStatement>(s).value.get(), place.soft);
      case StatementKind::kIf: return descend_if(as<IfStatement>(s), scope, place);
      case StatementKind::kFor: return descend_for(as<ForStatement>(s), scope, place);
      case StatementKind::kSet:
        check_target(as<SetStatement>(s).target, place);
        return check(as<SetStatement>(s).value.get(), place.soft);
      case StatementKind::kSetBlock: {
        auto& set = as<SetBlockStatement>(s);
        check_target(set.target, place);
        check(set.filters, false);
        return enter(set.body, &scope, place);
      }
      case StatementKind::kMacro: return descend_routine(as<MacroStatement>(s).routine, s.line, scope, place);
      case StatementKind::kCallBlock:
        check(as<CallBlockStatement>(s).call.get(), place.soft);
        return descend_routine(as<CallBlockStatement>(s).caller, s.line, scope, place);
      case StatementKind::kFilterBlock:
        check(as<FilterBlockStatement>(s).filters, false);
        return enter(as<FilterBlockStatement>(s).body, &scope, place);
      case StatementKind::kWith: return descend_with(as<WithStatement>(s), scope, place);
      case StatementKind::kGeneration: place.in_loop = false; return enter(as<BodyStatement>(s).body, &scope, place);
      case StatementKind::kAutoescape:
        check(as<BodyStatement>(s).value.get(), false);
        return enter(as<BodyStatement>(s).body, &scope, place);
      case StatementKind::kBlock:
        place.in_loop = false;
        return enter(as<BodyStatement>(s).body, as<BodyStatement>(s).is_scoped ? &scope : nullptr, place);
      case StatementKind::kBreak:
      case StatementKind::kContinue:
        if (!place.in_loop)
          fail_syntax(where_, s.line, fmt::format("{} outside of a loop", as<PlainStatement>(s).name));
        return;
    }
  }

  void descend_if(IfStatement& s, const Scope& scope, Place place) {
    place.soft = true;
    for (auto& branch : s.branches) {
      if (branch.condition != nullptr) check(branch.condition.get(), true);
      descend(branch.statements, scope, place);
    }
  }

  void descend_for(ForStatement& s, const Scope& scope, Place place) {
    check(s.iterable.get(), place.soft);
    if (s.condition != nullptr) check(s.condition.get(), false);
    Place inside = place;
    inside.inside_for = inside.in_loop = true;
    check_target(s.target, inside);
    Scope body;
    body.outer = &scope;
    body.parameter("loop");
    for_each_target(s.target, [&](const Target& single) { body.parameter(single.name); });
    enter(s.body, body, inside);
    place.inside_for = true;
    enter(s.otherwise, &scope, place);
  }

  void descend_routine(Routine& routine, int line, const Scope& scope, Place place) {
    const SpecialNames special(routine.body);
    const auto is_parameter = [&](std::string_view name) {
      return std::any_of(routine.parameters.begin(), routine.parameters.end(),
                         [&](const auto& p) { return p.name == name; });
    };
    for (const auto& parameter : routine.parameters) {
      if (parameter.name == "caller" && parameter.standard == nullptr && special.uses("caller")) {
        fail_syntax(where_, line, "the parameter 'caller' needs a default");
      }
    }
    routine.uses_caller = special.uses("caller") && !is_parameter("caller");
    routine.uses_kwargs = special.uses("kwargs") && !is_parameter("kwargs");
    routine.uses_varargs = special.uses("varargs") && !is_parameter("varargs");
    Scope inside;
    inside.outer = &scope;
    for (const std::string_view name : {"caller", "kwargs", "varargs"}) inside.parameter(name);
    for (const auto& parameter : routine.parameters) inside.parameter(parameter.name);
    for (const auto& parameter : routine.parameters) {
      inside.load(parameter.standard.get());
      if (parameter.standard != nullptr) check(parameter.standard.get(), false);
    }
    place.in_loop = false;
    enter(routine.body, inside, place);
  }

  void descend_with(WithStatement& s, const Scope& scope, Place place) {
    Scope inside;
    inside.outer = &scope;
    for (const auto& [target, value] : s.assignments) {
      check(value.get(), place.soft);
      for_each_target(target, [&](const Target& single) { inside.parameter(single.name); });
    }
    enter(s.body, inside, place);
  }

  void check_target(const Target& target, const Place& place) const {
    for_each_target(target, [&](const Target& single) {
      if (place.inside_for && single.kind == Target::Kind::kName && single.name == "loop") {
        fail_syntax(where_, single.line, "'loop' cannot be set inside a loop");
      }
    });
  }

  void check(const std::vector<Step>& filters, bool soft) const {
    for (const Step& step : filters) check(step, soft);
  }
  void check(const Step& step, bool soft) const {
    if (soft) return;
    if (step.kind == Step::Kind::kFilter && step.filter == nullptr) {
      fail_syntax(where_, step.line, fmt::format("there is no filter {}", quote(step.name)));
    }
    if (step.kind == Step::Kind::kTest && step.test == nullptr) {
      fail_syntax(where_, step.line, fmt::format("there is no test {}", quote(step.name)));
    }
  }
  void check(const Expr* expr, bool soft) const {
    if (soft || expr->kind == ExprKind::kConditional) return;
    if (expr->kind == ExprKind::kPostfix) check(static_cast<const PostfixExpr*>(expr)->steps, soft);
    for_each_part(*expr, [&](const Expr& part) { check(&part, soft); });
  }

  const std::string_view where_;
};

}  // namespace

void analyse(Body& root, std::string_view where) { Analyser(where).root(root); }

}  // namespace idefics::jinja
