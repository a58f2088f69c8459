"""Writes tests/golden/data/grammar/engine_verdicts.jsonl: schemas, expressions, texts, and what three others say of them.

    python3 tools/make_grammar_verdicts.py > tests/golden/data/grammar/engine_verdicts.jsonl

Made with jsonschema 4.26.0, llguidance 1.9.1 and xgrammar 0.2.8 (which wants torch; nothing here computes with it). Each
line: "kind" (schema, regex), "source", and "texts": [text, valid, llguidance, xgrammar]. "valid": what jsonschema or
Python's re says of the whole text. The engines take the text byte by byte: [bytes taken, whether the text is complete];
null where the engine refuses the source.
"""
import json
import random
import re
import sys

import jsonschema
import llguidance
import xgrammar

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

HOSTILE = [
    (json.loads('{"$defs": {"n": {"type": "object", "properties": {"v": {"type": "integer"}, "next": {"$ref": "#/$defs/n"}}, "required": ["v"]}}, "allOf": [{"$ref": "#/$defs/n"}, {"properties": {"v": {"minimum": 3}}}]}'), ['{"v":3}', '{"v":2}', '{"v":3,"next":{"v":1}}', '{"v":3,"next":{"v":5,"next":{"v":1}}}', '{"next":{"v":3}}']),
    (json.loads('{"$defs": {"n": {"type": "object", "properties": {"next": {"allOf": [{"$ref": "#/$defs/n"}, {"required": ["next"]}]}}}}, "$ref": "#/$defs/n"}'), ['{}', '{"next":{}}']),
    (json.loads('{"$defs": {"n": {"type": "object", "properties": {"v": {"type": "integer"}, "next": {"allOf": [{"$ref": "#/$defs/n"}, {"required": ["v"]}]}}}}, "$ref": "#/$defs/n"}'), ['{}', '{"next":{}}', '{"next":{"v":1}}', '{"v":1,"next":{"v":2,"next":{"v":1}}}']),
    (json.loads('{"$defs": {"n": {"allOf": [{"properties": {"next": {"$ref": "#/$defs/n"}}}, {"type": "object", "required": ["v"], "properties": {"v": {"type": "null"}}}]}}, "$ref": "#/$defs/n"}'), ['{"v":null}', '{"next":{"v":null},"v":null}', '{"next":{},"v":null}']),
    (json.loads('{"$defs": {"a": {"type": "array", "items": {"$ref": "#/$defs/a"}}, "b": {"type": "array", "items": {"$ref": "#/$defs/b"}, "maxItems": 1}}, "allOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}]}'), ['[]', '[[]]', '[[[]]]', '[[],[]]']),
    (json.loads('{"allOf": [{"properties": {"a": {"type": "integer"}}, "additionalProperties": false}, {"properties": {"b": {"type": "integer"}}, "additionalProperties": false}]}'), ['{}', '{"a":1}', '{"b":1}']),
    (json.loads('{"allOf": [{"properties": {"a": {"type": "integer"}, "b": {"minimum": 2}}, "additionalProperties": false}, {"properties": {"b": {"type": "integer"}}, "additionalProperties": false, "type": "object"}]}'), ['{}', '{"a":1}', '{"b":1}', '{"b":2}']),
    (json.loads('{"type": "object", "properties": {"a": true}, "additionalProperties": false, "allOf": [{"required": ["b"]}]}'), ['{}', '{"a":1}']),
    (json.loads('{"allOf": [{"properties": {"a": {"type": "integer"}}, "additionalProperties": {"type": "string"}}, {"properties": {"b": {"minLength": 2}}}]}'), ['{"a":1}', '{"a":1,"b":"xy"}', '{"b":"x"}', '{"b":3}', '{"a":1,"c":"x"}']),
    (json.loads('{"allOf": [{"properties": {"a": {"type": "integer"}}, "additionalProperties": {"type": "string"}}, {"additionalProperties": {"minLength": 2}}]}'), ['{"a":1}', '{"a":1,"b":"xy"}', '{"b":"x"}']),
    (json.loads('{"properties": {"a": {"type": "integer"}}, "allOf": [{"additionalProperties": false}]}'), ['{}', '{"a":1}']),
    (json.loads('{"allOf": [{"additionalProperties": false}, {"properties": {"a": {}}}, {"properties": {"a": {}}, "additionalProperties": false}]}'), ['{}', '{"a":1}']),
    (json.loads('{"type": "object", "properties": {"a": {"type": "null"}}, "required": ["z"]}'), ['{"z":1}', '{}', '{"a":null,"z":[]}']),
    (json.loads('{"required": ["z"]}'), ['{"z":1}', '{}', '1', '{"z":{}}', '{"y":1,"z":2}']),
    (json.loads('{"type": "object", "required": ["z"], "additionalProperties": {"type": "integer"}}'), ['{"z":1}', '{}', '{"z":"a"}', '{"z":1,"y":2}', '{"z":1,"y":"a"}']),
    (json.loads('{"type": "object", "required": ["z", "z"], "minProperties": 2, "properties": {"z": {}}}'), ['{"z":1}']),
    (json.loads('{"allOf": [{"required": ["a"]}, {"required": ["b"]}, {"type": "object"}]}'), ['{"a":1,"b":2}', '{"a":1}', '{"b":1}']),
    (json.loads('{"allOf": [{"enum": [1, 2, "a", null]}, {"type": "integer"}]}'), ['1', '2', '"a"', 'null']),
    (json.loads('{"allOf": [{"enum": [1, 2, 3]}, {"enum": [2, 3, 4]}, {"const": 3}]}'), ['1', '2', '3', '4']),
    (json.loads('{"allOf": [{"enum": [1, 2, 3]}, {"minimum": 2}]}'), ['1', '2']),
    (json.loads('{"enum": [1, 2, 3], "allOf": [{"maximum": 2}]}'), ['1', '3']),
    (json.loads('{"allOf": [{"const": 1}, {"const": 1.0}]}'), ['1', '1.0']),
    (json.loads('{"allOf": [{"enum": [1.0, 2.5]}, {"type": "integer"}]}'), ['1', '1.0', '2.5']),
    (json.loads('{"const": 1.0}'), ['1', '1.0']),
    (json.loads('{"const": 1}'), ['1', '1.0', 'true']),
    (json.loads('{"enum": [true, 1]}'), ['true', '1', 'false']),
    (json.loads('{"allOf": [{"enum": [true]}, {"enum": [1]}]}'), ['true', '1']),
    (json.loads('{"allOf": [{"enum": [[1, {"a": 1.0}]]}, {"enum": [[1.0, {"a": 1}]]}]}'), ['[1,{"a":1}]', '[1,{"a":1.0}]']),
    (json.loads('{"allOf": [{"enum": [{"a": 1, "b": 2}]}, {"enum": [{"b": 2, "a": 1}]}]}'), ['{"a":1,"b":2}']),
    (json.loads('{"allOf": [{"enum": ["a", "b"]}, {"minLength": 2}]}'), ['"a"']),
    (json.loads('{"allOf": [{"const": "a"}, {"pattern": "b"}]}'), ['"a"']),
    (json.loads('{"type": "string", "allOf": [{"enum": ["a", 1]}]}'), ['"a"', '1']),
    (json.loads('{"const": null}'), ['null', '0']),
    (json.loads('{"enum": [0, -0.0, 100.0, 1e+20, 0.1, 1e-07]}'), ['0', '100', '100.0', '1e+20', '0.1', '1e-07']),
    (json.loads('{"type": ["integer", "string"], "allOf": [{"type": ["number", "null"]}]}'), ['1', '"a"', 'null', '1.5']),
    (json.loads('{"type": ["integer", "number"]}'), ['1', '1.5', '"a"']),
    (json.loads('{"type": ["number", "string"], "minimum": 3, "minLength": 2}'), ['1', '3', '"a"', '"ab"']),
    (json.loads('{"type": [], "minimum": 1}'), ['1']),
    (json.loads('{"allOf": [{"type": "integer"}, {"type": "number"}]}'), ['1', '1.5']),
    (json.loads('{"allOf": [{"type": "string"}, {"type": "number"}]}'), ['1']),
    (json.loads('{"allOf": [{"type": ["string", "number"]}, {"type": ["integer", "boolean"]}]}'), ['1', '1.5', 'true', '"a"']),
    (json.loads('{"type": ["object", "null"], "properties": {"a": {"type": ["integer", "null"]}}, "required": ["a"], "additionalProperties": false}'), ['null', '{"a":null}', '{"a":1}', '{}']),
    (json.loads('{"allOf": [{"minLength": 2}, {"minimum": 3}]}'), ['"ab"', '"a"', '3', '2', 'null']),
    (json.loads('{"allOf": [{"type": "integer"}, {"minLength": 2}]}'), ['1', '"ab"']),
    (json.loads('{"allOf": [{"properties": {"a": {"type": "integer"}}}, {"items": {"type": "integer"}}]}'), ['{"a":1}', '[1]', '["a"]', '{"a":"x"}']),
    (json.loads('{"oneOf": [{"type": "integer"}, {"type": "number"}]}'), ['1', '1.5']),
    (json.loads('{"oneOf": [{"const": 1}, {"const": 1.0}]}'), ['1']),
    (json.loads('{"oneOf": [{"const": 1}, {"const": true}]}'), ['1', 'true']),
    (json.loads('{"oneOf": [{"type": "integer"}, {"enum": [1.5, 2.5]}]}'), ['1', '1.5']),
    (json.loads('{"oneOf": [{"type": "integer"}, {"enum": [1.0, 2.5]}]}'), ['1', '2.5']),
    (json.loads('{"oneOf": [{"type": "integer", "maximum": 5}, {"type": "number", "exclusiveMinimum": 5}]}'), ['5', '5.5', '6']),
    (json.loads('{"oneOf": [{"type": "integer", "maximum": 5}, {"type": "number", "minimum": 5}]}'), ['5']),
    (json.loads('{"oneOf": [{"type": "number", "maximum": 5}, {"type": "number", "minimum": 3}]}'), ['4']),
    (json.loads('{"oneOf": [{"type": "integer", "multipleOf": 3}, {"type": "integer", "multipleOf": 5}]}'), ['15']),
    (json.loads('{"oneOf": [{"type": "string", "maxLength": 3}, {"type": "string", "minLength": 3}]}'), ['"abc"']),
    (json.loads('{"oneOf": [{"type": "string", "maxLength": 3}, {"type": "string", "minLength": 4}]}'), ['"abc"', '"abcd"']),
    (json.loads('{"oneOf": [{"minimum": 5}, {"type": "string"}]}'), ['"a"', '6']),
    (json.loads('{"oneOf": [{"minLength": 5}, {"type": "integer"}]}'), ['1', '"abcdef"']),
    (json.loads('{"oneOf": [{"properties": {"k": {"const": "a"}}, "required": ["k"]}, {"properties": {"k": {"const": "b"}}, "required": ["k"]}]}'), ['{"k":"a"}', '{"k":"b"}', '{"k":"c"}', '{}', '1']),
    (json.loads('{"oneOf": [{"properties": {"k": {"const": "a"}}, "required": ["k"]}, {"properties": {"k": {"const": "b"}}}]}'), ['{"k":"a"}', '{}']),
    (json.loads('{"oneOf": [{"type": "object", "properties": {"k": {"const": 1}}, "required": ["k"]}, {"type": "object", "properties": {"k": {"const": 1.0}, "j": {}}, "required": ["k"]}]}'), ['{"k":1}']),
    (json.loads('{"oneOf": [{"type": "object", "properties": {"a": {}}, "required": ["a"], "additionalProperties": false}, {"type": "object", "properties": {"b": {}}, "required": ["b"], "additionalProperties": false}]}'), ['{"a":1}', '{"b":1}', '{}']),
    (json.loads('{"oneOf": [{"type": "object", "required": ["a"]}, {"type": "object", "properties": {"b": {}}, "additionalProperties": false}]}'), ['{"a":1}', '{"b":1}', '{}']),
    (json.loads('{"oneOf": [{"type": "object", "required": ["a"]}, {"type": "object", "required": ["b"]}]}'), ['{"a":1,"b":2}', '{"a":1}']),
    (json.loads('{"oneOf": [{"type": "object", "properties": {"a": false}}, {"type": "object", "required": ["a"]}]}'), ['{"a":1}', '{}']),
    (json.loads('{"oneOf": [{"type": "array", "maxItems": 0}, {"type": "array", "minItems": 1}]}'), ['[]', '[1]']),
    (json.loads('{"oneOf": [{"type": "array", "items": {"type": "integer"}}, {"type": "array", "items": {"type": "string"}}]}'), ['[]', '[1]', '["a"]']),
    (json.loads('{"oneOf": [true, false]}'), ['1']),
    (json.loads('{"oneOf": [true, true]}'), ['1']),
    (json.loads('{"oneOf": [{}]}'), ['1']),
    (json.loads('{"oneOf": [{"type": "string"}, {"not": {}}]}'), ['"a"']),
    (json.loads('{"oneOf": [{"oneOf": [{"type": "integer"}, {"type": "string"}]}, {"oneOf": [{"type": "boolean"}, {"type": "null"}]}]}'), ['1', '"a"', 'true', 'null', '[]']),
    (json.loads('{"oneOf": [{"oneOf": [{"type": "integer"}, {"type": "string"}]}, {"oneOf": [{"type": "number"}, {"type": "null"}]}]}'), ['1', '"a"', '1.5']),
    (json.loads('{"oneOf": [{"anyOf": [{"type": "integer"}, {"type": "string"}]}, {"allOf": [{"type": "number"}, {"type": "null"}]}]}'), ['1', '"a"']),
    (json.loads('{"oneOf": [{"allOf": [{"type": "integer"}]}, {"allOf": [{"type": "integer"}]}]}'), ['1']),
    (json.loads('{"oneOf": [{"allOf": [{"type": "integer"}]}, {"allOf": [{"type": "string"}]}]}'), ['1', '"a"', 'null']),
    (json.loads('{"type": "object", "oneOf": [{"required": ["a"]}, {"required": ["b"]}], "properties": {"a": {}, "b": {}}, "additionalProperties": false}'), ['{"a":1}', '{"b":1}', '{"a":1,"b":1}', '{}']),
    (json.loads('{"oneOf": [{"type": "integer"}, {"type": "string"}], "anyOf": [{"minimum": 3}, {"maxLength": 2}]}'), ['3', '2', '"abc"', '"a"']),
    (json.loads('{"oneOf": [{"type": "integer"}, {"type": "string"}], "minimum": 3}'), ['3', '2', '"abc"']),
    (json.loads('{"anyOf": [{"oneOf": [{"type": "integer"}, {"type": "string"}]}, {"type": "null"}]}'), ['1', 'null', '"a"', '1.5']),
    (json.loads('{"allOf": [{"oneOf": [{"type": "integer"}, {"type": "string"}]}, {"oneOf": [{"type": "integer"}, {"type": "null"}]}]}'), ['1', '"a"', 'null']),
    (json.loads('{"allOf": [{"anyOf": [{"type": "integer"}, {"type": "string"}]}, {"anyOf": [{"type": "integer"}, {"type": "null"}]}]}'), ['1', '"a"', 'null']),
    (json.loads('{"allOf": [{"anyOf": [{"type": "integer"}, {"type": "string"}]}, {"minimum": 3, "maxLength": 1}]}'), ['3', '2', '"a"', '"ab"']),
    (json.loads('{"allOf": [{"oneOf": [{"type": "integer"}, {"type": "string"}]}, {"minimum": 3}]}'), ['3', '2', '"a"']),
    (json.loads('{"anyOf": [{"type": "integer"}], "oneOf": [{"type": "integer"}, {"type": "string"}], "allOf": [{"maximum": 4}]}'), ['4', '5', '"a"']),
    (json.loads('{"anyOf": [{"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}, {"type": "object", "properties": {"a": {"type": "string"}, "b": {}}, "required": ["b"]}]}'), ['{"a":1}', '{"a":"x"}', '{"a":"x","b":1}', '{"a":1,"b":2}']),
    (json.loads('{"anyOf": [{"type": "object", "properties": {"a": {"type": "integer"}}}, {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "null"}}}], "required": ["a"]}'), ['{"a":1}', '{"a":1,"b":null}', '{"a":1,"b":1}', '{}']),
    (json.loads('{"type": "object", "properties": {"x": {"type": "integer"}}, "anyOf": [{"properties": {"x": {"minimum": 3}}}, {"properties": {"x": {"maximum": 1}}}], "additionalProperties": false}'), ['{"x":3}', '{"x":2}', '{"x":1}', '{}']),
    (json.loads('{"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}'), ['1']),
    (json.loads('{"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b", "minimum": 1}, "b": {"$ref": "#/$defs/a"}}}'), ['1']),
    (json.loads('{"allOf": [{"$ref": "#/$defs/a"}, {"minimum": 1}], "$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}]}}}'), ['1']),
    (json.loads('{"anyOf": [{"$ref": "#/$defs/a"}, {"type": "null"}], "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}, {"type": "string"}]}}}'), ['null', '"a"']),
    (json.loads('{"oneOf": [{"$ref": "#/$defs/a"}, {"type": "null"}], "$defs": {"a": {"oneOf": [{"$ref": "#/$defs/a"}, {"type": "string"}]}}}'), ['null', '"a"']),
    (json.loads('{"oneOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}], "$defs": {"a": {"type": "object", "properties": {"k": {"const": "a"}, "c": {"$ref": "#"}}, "required": ["k"]}, "b": {"type": "object", "properties": {"k": {"const": "b"}, "c": {"$ref": "#"}}, "required": ["k"]}}}'), ['{"k":"a","c":{"k":"b"}}', '{"k":"b"}', '{"k":"a","c":{"k":"c"}}']),
    (json.loads('{"oneOf": [{"type": "object", "properties": {"c": {"$ref": "#"}}, "required": ["c"]}, {"type": "object", "properties": {"c": {"$ref": "#"}, "d": {}}, "required": ["c", "d"]}]}'), ['{}']),
    (json.loads('{"$ref": "#/properties/a", "properties": {"a": {"type": "integer"}}}'), ['1', '{}']),
    (json.loads('{"properties": {"a": {"$ref": "#/properties/b"}, "b": {"$ref": "#/properties/a"}}, "type": "object"}'), ['{}', '{"a":1}']),
    (json.loads('{"type": "array", "items": {"allOf": [{"$ref": "#"}, {"maxItems": 1}]}}'), ['[]', '[[]]', '[[[]]]', '[[[],[]]]', '[[],[]]']),
    (json.loads('{"type": "array", "items": {"allOf": [{"$ref": "#"}, {"maxItems": 1}]}, "minItems": 0}'), ['[[[]]]']),
    (json.loads('{"allOf": [{"minLength": 5}, {"maxLength": 3, "type": "string"}]}'), ['"abcd"']),
    (json.loads('{"allOf": [{"minimum": 5}, {"maximum": 3}, {"type": "integer"}]}'), ['4']),
    (json.loads('{"allOf": [{"minimum": 5}, {"exclusiveMinimum": 5}, {"type": "integer"}]}'), ['5', '6']),
    (json.loads('{"allOf": [{"multipleOf": 2}, {"multipleOf": 3}, {"type": "integer"}]}'), ['6', '2']),
    (json.loads('{"allOf": [{"pattern": "^a"}, {"pattern": "b$"}, {"type": "string"}]}'), ['"ab"']),
    (json.loads('{"allOf": [{"format": "date"}, {"format": "time"}, {"type": "string"}]}'), ['"a"']),
    (json.loads('{"allOf": [{"minItems": 2}, {"maxItems": 3}, {"items": {"type": "integer"}}, {"type": "array"}]}'), ['[1,2]', '[1]', '[1,2,3,4]', '["a","b"]']),
    (json.loads('{"allOf": [{"maxProperties": 1}, {"properties": {"a": {}, "b": {}}}, {"minProperties": 1, "type": "object"}]}'), ['{}', '{"a":1}', '{"a":1,"b":1}']),
    (json.loads('{"allOf": [{"type": "object", "properties": {"a": {"enum": [1, 2]}}}, {"properties": {"a": {"enum": [2, 3]}}, "required": ["a"]}]}'), ['{"a":1}', '{"a":2}', '{}']),
    (json.loads('{"allOf": [true, {"type": "integer"}]}'), ['1', '"a"']),
    (json.loads('{"allOf": [false, {"type": "integer"}]}'), ['1']),
    (json.loads('{"allOf": [{}]}'), ['1', '"a"']),
    (json.loads('{"allOf": []}'), ['1']),
    (json.loads('{"allOf": [{"not": {"type": "null"}}, {"type": "integer"}]}'), ['1']),
    (json.loads('{"allOf": [{"type": "array", "uniqueItems": true}, {"type": "array"}]}'), ['[1,1]', '[1]']),
    (json.loads('{"allOf": [{"type": "object", "properties": {"a": {"not": {}}}}, {"type": "object"}]}'), ['{}']),
    (json.loads('{"allOf": [{"properties": {"a": {"foo": 1}}}, {"properties": {"a": {"foo": 1}}}]}'), ['{}']),
    (json.loads('{"allOf": [{"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}]}, {"items": false, "prefixItems": [true]}]}'), ['[1]', '[1,"a"]', '[]']),
    (json.loads('{"allOf": [{"type": "array", "prefixItems": [{"type": "integer"}]}, {"type": "array", "items": {"type": "number"}}]}'), ['[1]', '[1.5]', '[1,1.5]', '[1,"a"]']),
    (json.loads('{"allOf": [{"anyOf": [{"type": "integer", "minimum": 0}, {"type": "integer", "minimum": 1}, {"type": "integer", "minimum": 2}]}, {"anyOf": [{"type": "integer", "minimum": 3}, {"type": "integer", "minimum": 4}, {"type": "integer", "minimum": 5}]}, {"anyOf": [{"type": "integer", "minimum": 6}, {"type": "integer", "minimum": 7}, {"type": "integer", "minimum": 8}]}]}'), ['10', '0']),
    (json.loads('{"$defs": {"d0": {"type": "integer"}, "d1": {"allOf": [{"$ref": "#/$defs/d0"}, {"$ref": "#/$defs/d0"}]}, "d2": {"allOf": [{"$ref": "#/$defs/d1"}, {"$ref": "#/$defs/d1"}]}, "d3": {"allOf": [{"$ref": "#/$defs/d2"}, {"$ref": "#/$defs/d2"}]}, "d4": {"allOf": [{"$ref": "#/$defs/d3"}, {"$ref": "#/$defs/d3"}]}}, "$ref": "#/$defs/d4"}'), ['1', '"a"']),
    (json.loads('{"$defs": {"d0": {"type": "integer"}, "d1": {"oneOf": [{"type": "object", "properties": {"k": {"const": 1}, "c": {"$ref": "#/$defs/d0"}}, "required": ["k", "c"]}, {"type": "object", "properties": {"k": {"const": -1}, "c": {"$ref": "#/$defs/d0"}}, "required": ["k", "c"]}]}, "d2": {"oneOf": [{"type": "object", "properties": {"k": {"const": 2}, "c": {"$ref": "#/$defs/d1"}}, "required": ["k", "c"]}, {"type": "object", "properties": {"k": {"const": -2}, "c": {"$ref": "#/$defs/d1"}}, "required": ["k", "c"]}]}, "d3": {"oneOf": [{"type": "object", "properties": {"k": {"const": 3}, "c": {"$ref": "#/$defs/d2"}}, "required": ["k", "c"]}, {"type": "object", "properties": {"k": {"const": -3}, "c": {"$ref": "#/$defs/d2"}}, "required": ["k", "c"]}]}}, "$ref": "#/$defs/d3"}'), ['{"k":3,"c":{"k":-2,"c":{"k":1,"c":5}}}']),
]

REGEXES = [
    "[a-z]{1,10}", "(the|then|there)( card)*", "[A-Z][a-z]+ [0-9]{3,5}", "a*b+c?", "(ab|a)(bc|c)?", "\\d{2}-\\d{2}",
    "[^a-z]{2,4}", "x{0,3}y{2}", "(a|b)*abb", "\\w+@\\w+\\.(com|org)", "[+-]?[0-9]+(\\.[0-9]+)?", "(yes|no|maybe)",
    "[\\u00e0-\\u00ff]+", "(\\(([a-z]|\\s)*\\))+", "\\x41\\x42?", "a{3}", "(a{2}|b){2}", "[-a]+", "[\\]\\[]+", "(|a)b",
]


def sample(r, depth=2):
    """A schema and a value of it."""
    kind = r.randrange(13 if depth else 8)
    if kind == 0:
        return {"type": "boolean"}, r.random() < 0.5
    if kind == 1:
        return {"type": ["null", "integer"]}, r.choice([None, r.randrange(100)])
    if kind == 2:
        low = r.randrange(-300, 300)
        high = low + r.randrange(0, 700)
        return {"type": "integer", "minimum": low, "maximum": high}, r.randint(low, high)
    if kind == 3:
        low = r.randrange(-50, 50)
        return {"type": "number", "minimum": low, "exclusiveMaximum": low + 9}, r.choice([low, low + 0.5, low + 8.75])
    if kind in (4, 5):
        low = r.randrange(4)
        schema = r.choice([{"type": "string"}, {"type": "string", "minLength": low}, {"type": "string", "maxLength": low + 8},
                           {"type": "string", "minLength": low, "maxLength": low + 8}])
        return schema, "".join(r.choice("ab é字\"\\\n") for _ in range(r.randint(low, low + 8)))
    if kind == 6:
        values = ["red", "green", 1, None, "a\"b", [1, 2]]
        return {"enum": values}, r.choice(values)
    if kind == 7:
        return {"type": "string", "pattern": "^[a-c]{2,4}x?$"}, r.choice(["ab", "cab", "abcax", "bbx"])
    if kind == 8:
        parts = [sample(r, depth - 1) for _ in range(2)]
        return {"anyOf": [p[0] for p in parts]}, r.choice(parts)[1]
    if kind == 9:
        item, _ = sample(r, depth - 1)
        low = r.randrange(3)
        values = []
        for _ in range(r.randint(low, low + 2)):  # the same schema again, other values
            values.append(value_of(item, r))
        return {"type": "array", "items": item, "minItems": low, "maxItems": low + 2}, values
    if kind == 10:
        parts = [sample(r, 0) for _ in range(r.randint(1, 3))]
        return {"type": "array", "prefixItems": [p[0] for p in parts], "items": False, "minItems": len(parts)}, [p[1] for p in parts]
    names = r.sample(["id", "name", "a b", "é", "n", "tags"], r.randint(1, 4))
    properties, value, required = {}, {}, []
    for name in names:
        properties[name], v = sample(r, depth - 1)
        if r.random() < 0.6:
            required.append(name)
            value[name] = v
        elif r.random() < 0.5:
            value[name] = v
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}, value


def value_of(schema, r):
    """A value of a schema that sample() made."""
    if "anyOf" in schema:
        return value_of(r.choice(schema["anyOf"]), r)
    if "enum" in schema:
        return r.choice(schema["enum"])
    kind = schema["type"]
    if kind == "boolean":
        return r.random() < 0.5
    if kind == ["null", "integer"]:
        return r.choice([None, r.randrange(100)])
    if kind == "integer":
        return r.randint(schema["minimum"], schema["maximum"])
    if kind == "number":
        return schema["minimum"] + r.choice([0, 0.5, 8.75])
    if kind == "string":
        if "pattern" in schema:
            return r.choice(["ab", "cab", "abcax", "bbx"])
        low = schema.get("minLength", 0)
        return "".join(r.choice("ab é字\"\\\n") for _ in range(r.randint(low, schema.get("maxLength", low + 8))))
    if kind == "array":
        if "prefixItems" in schema:
            return [value_of(s, r) for s in schema["prefixItems"]]
        return [value_of(schema["items"], r) for _ in range(r.randint(schema["minItems"], schema["maxItems"]))]
    return {k: value_of(s, r) for k, s in schema["properties"].items() if k in schema["required"] or r.random() < 0.5}


def written(value):
    return json.dumps(value, ensure_ascii=False, separators=(", ", ": "))


def changed(text, r):
    """One byte of ASCII in it changed; longer by one where there is none."""
    places = [i for i, c in enumerate(text) if c < "\x80"]
    while places:
        place = r.choice(places)
        other = text[:place] + r.choice('ab01-.,:"{}[] \\eE+nt') + text[place + 1:]
        if other != text:
            return other
    return text + "a"


def cases():
    for schema, texts in HOSTILE:
        yield "schema", schema, texts
    for schema, texts in CASES:
        yield "schema", schema, texts
    r = random.Random(7)
    for _ in range(300):
        schema, value = sample(r)
        texts = [written(value), written(value_of(schema, r))]
        yield "schema", schema, sorted(set(texts + [changed(t, r) for t in texts for _ in range(3)]))
    for source in REGEXES:
        texts = ["".join(r.choice("abcxyz ABO01239.-+@()é[]\\") for _ in range(r.randint(1, 7))) for _ in range(12)]
        texts += ["the card", "then", "abb", "aabb", "abc", "xyy", "xxxyy", "12-34", "ab@c.org", "yes", "maybe", "-1.5", "Ab 123", "Abc 12345"]
        texts += ["éà", "(a b)(c)", "AB", "A", "aaa", "aabaa", "bb", "]a[", "-a-", "b", "ab"]
        texts += [changed(t, r) for t in texts[12:]]
        yield "regex", source, sorted(set(texts))


class Bytes:
    """A vocabulary of the 256 bytes and an end."""
    eos_token_id, bos_token_id, unk_token_id = 256, None, None
    tokens = [bytes([i]) for i in range(256)] + [b"<eos>"]
    special_token_ids = [256]

    def __call__(self, text):
        return list(text if isinstance(text, bytes) else text.encode())


class LlGuidance:
    def __init__(self):
        self.tokenizer = llguidance.LLTokenizer(llguidance.TokenizerWrapper(Bytes()))

    def compile(self, kind, source):
        if kind == "regex":
            grammar = llguidance.LLMatcher.grammar_from_regex(source)
        else:
            grammar = llguidance.LLMatcher.grammar_from_json_schema(json.dumps(source))
        return None if llguidance.LLMatcher(self.tokenizer, grammar, log_level=0).get_error() else grammar

    def take(self, grammar, data):
        matcher = llguidance.LLMatcher(self.tokenizer, grammar, log_level=0)
        for i, byte in enumerate(data):
            if not matcher.consume_token(byte):
                return [i, False]
        return [len(data), matcher.is_accepting()]


class XGrammar:
    def __init__(self):
        info = xgrammar.TokenizerInfo(Bytes.tokens, vocab_type=xgrammar.VocabType.RAW, stop_token_ids=[256])
        self.compiler = xgrammar.GrammarCompiler(info, max_threads=1)

    def compile(self, kind, source):
        try:
            if kind == "regex":
                return self.compiler.compile_regex(source)
            return self.compiler.compile_json_schema(json.dumps(source), strict_mode=True)
        except RuntimeError:
            return None

    def take(self, grammar, data):
        matcher = xgrammar.GrammarMatcher(grammar)
        for i, byte in enumerate(data):
            if not matcher.accept_token(byte):
                return [i, False]
        return [len(data), matcher.accept_token(256)]


def is_valid(kind, source, text):
    if kind == "regex":
        return re.fullmatch(source, text, re.ASCII) is not None
    try:
        value = json.loads(text)
        checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
        return jsonschema.Draft202012Validator(source, format_checker=checker).is_valid(value)
    except (ValueError, RecursionError):
        return False


def main():
    engines = [LlGuidance(), XGrammar()]
    for kind, source, texts in cases():
        grammars = [e.compile(kind, source) for e in engines]
        rows = []
        for text in texts:
            data = text.encode("utf-8")
            rows.append([text, is_valid(kind, source, text)] +
                        [None if g is None else e.take(g, data) for e, g in zip(engines, grammars)])
        print(json.dumps({"kind": kind, "source": source, "texts": rows}, ensure_ascii=True))
        sys.stdout.flush()


if __name__ == "__main__":
    main()
