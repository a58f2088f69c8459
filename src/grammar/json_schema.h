// JSON schemas as grammars.
#pragma once

#include <string_view>

#include "grammar/program.h"

namespace idefics::grammar {

// Every text of the grammar is a JSON value that is valid under the schema; not every valid value has a text in it
// (docs/structured_output.md). A keyword that could make such a value invalid and is not supported is an error.
// Errors: kSchemaInvalid, naming the place: "json_schema: #/properties/a: ...".
Grammar json_schema_grammar(std::string_view schema, Budget& budget);

// Any JSON object.
Grammar json_object_grammar(Budget& budget);

}  // namespace idefics::grammar
