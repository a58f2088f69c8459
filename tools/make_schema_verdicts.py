"""Writes tests/golden/data/grammar/schema_verdicts.jsonl: schemas, texts, and what others say of them.

    python3 tools/make_schema_verdicts.py > tests/golden/data/grammar/schema_verdicts.jsonl

Made with jsonschema 4.26.0 (draft 2020-12) and llguidance 1.9.1. Each line: the schema, and for each text whether it is
JSON that is valid (jsonschema) and whether llguidance would write it ("no" also where it refuses the schema).
"""
import json

import jsonschema
import llguidance

CASES = [
    ({"type": "integer"}, ["0", "-1", "12", "1.5", "01", "-", "\"1\"", "1e2", "-0", "+1"]),
    ({"type": "integer", "minimum": -5, "exclusiveMaximum": 12}, ["-6", "-5", "0", "11", "12", "100"]),
    ({"type": "integer", "minimum": -2.5, "maximum": 2.5}, ["-3", "-2", "0", "2", "3"]),
    ({"type": "integer", "multipleOf": 7, "minimum": 0, "maximum": 50}, ["0", "7", "14", "49", "56", "8", "-7"]),
    ({"type": "number", "exclusiveMinimum": 0, "maximum": 1}, ["0", "0.0", "0.1", "1", "1.0", "1.1", "-0.1"]),
    ({"type": "number", "minimum": -0.5, "maximum": 0.25}, ["-0.5", "-0.51", "0", "0.25", "0.26", "-1"]),
    ({"type": "string", "minLength": 2, "maxLength": 3}, ["\"a\"", "\"ab\"", "\"abc\"", "\"abcd\"", "\"é字\"", "\"\\n\\t\"", "\"\\u00e9a\"", "\"😀\""]),
    ({"type": "string", "pattern": "^[a-c]+$"}, ["\"abc\"", "\"\"", "\"abd\"", "\"ab\\n\""]),
    ({"type": "string", "pattern": "b"}, ["\"abc\"", "\"b\"", "\"ac\""]),
    ({"type": "string", "pattern": "^a|b$"}, ["\"ax\"", "\"xb\"", "\"xay\""]),
    ({"enum": ["a", 1, None, [1, 2], {"k": "v"}]}, ["\"a\"", "1", "null", "[1,2]", "[2,1]", "{\"k\":\"v\"}", "{\"k\":1}", "true"]),
    ({"const": {"a": [1, {"b": None}]}}, ["{\"a\":[1,{\"b\":null}]}", "{\"a\":[1,{\"b\":0}]}", "{}"]),
    ({"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 2}, ["[]", "[1]", "[1,2]", "[1,2,3]", "[\"a\"]"]),
    ({"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}], "items": False}, ["[\"a\",1]", "[\"a\"]", "[1]", "[\"a\",1,2]"]),
    ({"type": "array", "prefixItems": [{"type": "string"}], "items": {"type": "null"}}, ["[\"a\",null]", "[null]", "[\"a\",1]"]),
    ({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "string"}}, "required": ["a"], "additionalProperties": False},
     ["{\"a\":1}", "{\"a\":1,\"b\":\"x\"}", "{\"b\":\"x\"}", "{\"a\":1,\"c\":2}", "{\"a\":\"1\"}", "{}"]),
    ({"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": {"type": "string"}},
     ["{\"a\":1,\"z\":\"s\"}", "{\"z\":1}", "{\"a\":\"s\"}", "{}"]),
    ({"type": "object", "properties": {"a": {}, "b": {}, "c": {}}, "additionalProperties": False, "minProperties": 1, "maxProperties": 2},
     ["{}", "{\"a\":1}", "{\"a\":1,\"c\":2}", "{\"a\":1,\"b\":2,\"c\":3}"]),
    ({"anyOf": [{"type": "integer"}, {"type": "string", "maxLength": 1}]}, ["1", "\"a\"", "\"ab\"", "null"]),
    ({"oneOf": [{"type": "integer"}, {"type": "string"}]}, ["1", "\"a\"", "null", "1.5"]),
    ({"allOf": [{"type": "integer", "minimum": 3}, {"maximum": 5}]}, ["2", "3", "5", "6"]),
    ({"type": "array", "allOf": [{"prefixItems": [{"type": "integer"}], "items": True}, {"items": {"minimum": 5, "type": "integer"}}]},
     ["[5]", "[1]", "[5,6]", "[5,\"a\"]"]),
    ({"$defs": {"n": {"type": "object", "properties": {"v": {"type": "integer"}, "next": {"$ref": "#/$defs/n"}}, "required": ["v"],
                      "additionalProperties": False}}, "$ref": "#/$defs/n"},
     ["{\"v\":1}", "{\"v\":1,\"next\":{\"v\":2}}", "{\"v\":1,\"next\":{}}", "{\"next\":{\"v\":1}}"]),
    ({"type": "string", "format": "date"}, ["\"2024-02-29\"", "\"2023-02-29\"", "\"2024-13-01\"", "\"24-01-01\""]),
    ({"type": "string", "format": "ipv4"}, ["\"1.2.3.4\"", "\"256.1.1.1\"", "\"1.2.3\""]),
    ({"type": ["string", "null"]}, ["null", "\"x\"", "1", "\"\\ud800\"", "\"\n\""]),
    ({"type": "boolean"}, ["true", "false", "True", "0"]),
]


def is_valid(schema, text):
    try:
        value = json.loads(text)
    except ValueError:
        return False
    return jsonschema.Draft202012Validator(schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER).is_valid(value)


class Bytes:
    """A vocabulary of the 256 bytes and an end."""
    eos_token_id, bos_token_id, unk_token_id = 256, None, None
    tokens = [bytes([i]) for i in range(256)] + [b"<eos>"]
    special_token_ids = [256]

    def __call__(self, text):
        return list(text if isinstance(text, bytes) else text.encode())


def would_write(tokenizer, schema, text):
    matcher = llguidance.LLMatcher(tokenizer, llguidance.LLMatcher.grammar_from_json_schema(json.dumps(schema)))
    if matcher.get_error():
        return False
    return all(matcher.consume_token(b) for b in text.encode()) and matcher.is_accepting()


def main():
    tokenizer = llguidance.LLTokenizer(llguidance.TokenizerWrapper(Bytes()))
    for schema, texts in CASES:
        rows = [[t, is_valid(schema, t), would_write(tokenizer, schema, t)] for t in texts]
        print(json.dumps({"schema": schema, "texts": rows}, ensure_ascii=True))


if __name__ == "__main__":
    main()
