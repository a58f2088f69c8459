// A parsed template. Chains of operators of one precedence and chains of postfix steps are flat lists, so that the
// depth of the tree is the depth of the nesting in the source, which the parser limits.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "text/jinja/value.h"

namespace idefics::jinja {

struct FilterEntry;  // filters.h
struct TestEntry;    // tests.h

enum class ExprKind : uint8_t {
  kConstant,
  kName,
  kTuple,
  kList,
  kDict,
  kArithmetic,  // + - or * / // % or **, from the left
  kConcat,      // ~
  kAnd,
  kOr,
  kNot,
  kNegative,
  kPositive,
  kCompare,
  kConditional,
  kPostfix,
};

struct Expr {
  explicit Expr(ExprKind k, int l) : kind(k), line(l) {}
  virtual ~Expr() = default;
  ExprKind kind;
  int line;
};
using ExprPtr = std::unique_ptr<Expr>;

struct ConstantExpr final : Expr {
  ConstantExpr(Value v, int l) : Expr(ExprKind::kConstant, l), value(std::move(v)) {}
  Value value;
};

struct NameExpr final : Expr {
  NameExpr(std::string n, int l) : Expr(ExprKind::kName, l), name(std::move(n)) {}
  std::string name;
};

// kTuple, kList, kConcat, kAnd, kOr
struct ListExpr final : Expr {
  using Expr::Expr;
  std::vector<ExprPtr> items;
};

struct DictExpr final : Expr {
  explicit DictExpr(int l) : Expr(ExprKind::kDict, l) {}
  std::vector<std::pair<ExprPtr, ExprPtr>> entries;
};

// kNot, kNegative, kPositive
struct UnaryExpr final : Expr {
  UnaryExpr(ExprKind k, ExprPtr o, int l) : Expr(k, l), operand(std::move(o)) {}
  ExprPtr operand;
};

enum class Operator : uint8_t {
  kAdd,
  kSubtract,
  kMultiply,
  kDivide,
  kFloorDivide,
  kModulo,
  kPower,
  kEqual,
  kNotEqual,
  kLess,
  kLessEqual,
  kGreater,
  kGreaterEqual,
  kIn,
  kNotIn,
};

// kArithmetic, kCompare
struct ChainExpr final : Expr {
  using Expr::Expr;
  ExprPtr first;
  std::vector<std::pair<Operator, ExprPtr>> rest;
};

struct ConditionalExpr final : Expr {
  explicit ConditionalExpr(int l) : Expr(ExprKind::kConditional, l) {}
  ExprPtr condition, then, otherwise;  // `otherwise` may be null
};

struct CallArguments {
  std::vector<ExprPtr> positional;
  std::vector<std::pair<Value, ExprPtr>> named;  // the name as a text
  ExprPtr star, star_star;                       // may be null
};

struct Step {
  enum class Kind : uint8_t { kAttribute, kItem, kSlice, kCall, kFilter, kTest } kind;
  int line;
  bool negated = false;                      // kTest: `is not`
  std::string name;                          // of the attribute, filter or test
  std::array<ExprPtr, 3> index;              // kItem: the first; kSlice: from, to, by, which may be null
  std::unique_ptr<CallArguments> arguments;  // kCall, kFilter, kTest; null: none
  const FilterEntry* filter = nullptr;       // null: no such filter, an error when it is reached
  const TestEntry* test = nullptr;
};

struct PostfixExpr final : Expr {
  PostfixExpr(ExprPtr b, int l) : Expr(ExprKind::kPostfix, l), base(std::move(b)) {}
  ExprPtr base;
  std::vector<Step> steps;
};

// What `set`, `for` and `with` assign to.
struct Target {
  enum class Kind : uint8_t { kName, kAttribute, kTuple } kind = Kind::kName;
  int line = 0;
  std::string name;           // kName, and the namespace of kAttribute
  Value attribute;            // kAttribute: a text
  std::vector<Target> items;  // kTuple
};

enum class StatementKind : uint8_t {
  kText,
  kPrint,
  kIf,
  kFor,
  kSet,
  kSetBlock,
  kMacro,
  kCallBlock,
  kFilterBlock,
  kWith,
  kGeneration,
  kBlock,
  kAutoescape,
  kBreak,
  kContinue,
  kNeedsLoader,  // include, import, extends: an error when it is reached
};

struct Statement {
  Statement(StatementKind k, int l) : kind(k), line(l) {}
  virtual ~Statement() = default;
  StatementKind kind;
  int line;
};
using StatementPtr = std::unique_ptr<Statement>;

// Statements with a scope of their own.
struct Body {
  std::vector<StatementPtr> statements;
  // Names that this scope sets and that nothing looked up before: they are undefined until then, even where a variable
  // of the request has that name (Jinja decides the scope of names when it compiles).
  std::vector<std::string> unset;
};

struct TextStatement final : Statement {
  TextStatement(std::string t, int l) : Statement(StatementKind::kText, l), text(std::move(t)) {}
  std::string text;
};

struct PrintStatement final : Statement {
  PrintStatement(ExprPtr v, int l) : Statement(StatementKind::kPrint, l), value(std::move(v)) {}
  ExprPtr value;
};

struct IfStatement final : Statement {
  explicit IfStatement(int l) : Statement(StatementKind::kIf, l) {}
  struct Branch {
    ExprPtr condition;  // null: else
    std::vector<StatementPtr> statements;
  };
  std::vector<Branch> branches;
};

struct ForStatement final : Statement {
  explicit ForStatement(int l) : Statement(StatementKind::kFor, l) {}
  Target target;
  ExprPtr iterable, condition;  // `condition` may be null
  bool recursive = false;
  Body body, otherwise;
};

struct SetStatement final : Statement {
  explicit SetStatement(int l) : Statement(StatementKind::kSet, l) {}
  Target target;
  ExprPtr value;
};

struct SetBlockStatement final : Statement {
  explicit SetBlockStatement(int l) : Statement(StatementKind::kSetBlock, l) {}
  Target target;
  std::vector<Step> filters;
  Body body;
};

// What a macro and the body of a call block have in common.
struct Routine {
  struct Parameter {
    std::string name;
    ExprPtr standard;  // null: none
  };
  std::string name;
  std::vector<Parameter> parameters;
  Body body;
  bool is_caller = false;  // the body of a call block
  bool uses_caller = false, uses_kwargs = false, uses_varargs = false;
};

struct MacroStatement final : Statement {
  explicit MacroStatement(int l) : Statement(StatementKind::kMacro, l) {}
  Routine routine;
};

struct CallBlockStatement final : Statement {
  explicit CallBlockStatement(int l) : Statement(StatementKind::kCallBlock, l) {}
  std::unique_ptr<PostfixExpr> call;  // its last step is a call
  Routine caller;
};

struct FilterBlockStatement final : Statement {
  explicit FilterBlockStatement(int l) : Statement(StatementKind::kFilterBlock, l) {}
  std::vector<Step> filters;
  Body body;
};

struct WithStatement final : Statement {
  explicit WithStatement(int l) : Statement(StatementKind::kWith, l) {}
  std::vector<std::pair<Target, ExprPtr>> assignments;
  Body body;
};

// kGeneration, kBlock, kAutoescape
struct BodyStatement final : Statement {
  using Statement::Statement;
  std::string name;        // kBlock
  bool is_scoped = false;  // kBlock
  ExprPtr value;           // kAutoescape
  Body body;
};

// kBreak, kContinue, kNeedsLoader
struct PlainStatement final : Statement {
  using Statement::Statement;
  std::string name;
};

}  // namespace idefics::jinja
