"""The subset of JSON schema that legal calls are written in, and what one can do with it.

A legal call is a schema and nothing else: the target model obeys it through a grammar (grammar.py), the scripted
controls draw from it (`sample_call`, `first_call`), and tests check replies against it with `violations`, which shares
no code with the grammar and so is an independent witness.

Supported: const, enum, anyOf, oneOf (alternatives), integer with minimum and maximum, boolean, null, string with
minLength and maxLength, array with prefixItems, items, minItems and maxItems, object with properties, required and
additionalProperties: false, and `$ref` into `$defs`. Anything else is refused by name: a keyword that is silently
ignored would make an illegal call look legal.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from self_pruner.memory.errors import BrainError

Schema = Mapping[str, Any]

ANNOTATIONS = {"title", "description", "default", "examples", "$defs", "definitions", "$schema", "deprecated"}
KEYWORDS = ANNOTATIONS | {
    "const", "enum", "anyOf", "oneOf", "$ref", "type", "minimum", "maximum", "minLength", "maxLength",
    "prefixItems", "items", "minItems", "maxItems", "properties", "required", "additionalProperties", "discriminator",
}  # fmt: skip
OPEN_RANGE = 100  # an integer without an end is drawn from this many values: the controls need some end
OPEN_TEXT = 12  # characters drawn where no maxLength is given
OPEN_ITEMS = 3  # elements drawn beyond minItems where no maxItems is given
OPEN_LIST = 16  # elements that a list without an end gets where a reply must have one
SHORTEST_TEXT = 8  # characters that a string without an end gets there at least
DEEPEST = 64  # objects and lists within each other in an answer
NAMED = ("properties", "$defs", "definitions")  # objects of schemas by name
NAMED_OPTIONS = 12  # of a choice that are named where none of them was made
VALUES = ("const", "enum", "default", "examples")  # what is no schema
LETTERS = "abcdefghijklmnopqrstuvwxyz "


def rewritten(schema: Any, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    """The schema with `change` made of every schema in it, the innermost first; the given one stays as it is."""
    if isinstance(schema, list | tuple):
        return [rewritten(one, change) for one in schema]
    if not isinstance(schema, Mapping):
        return schema
    result: dict[str, Any] = {}
    for name, value in schema.items():
        if name in NAMED and isinstance(value, Mapping):
            result[name] = {field: rewritten(inner, change) for field, inner in value.items()}
        else:
            result[name] = value if name in VALUES else rewritten(value, change)
    return change(result)


def resolve(schema: Schema, root: Schema) -> Schema:
    """Follows `$ref` into the definitions of `root` and refuses keywords that we do not obey."""
    unknown = sorted(set(schema) - KEYWORDS)
    if unknown:
        raise BrainError(f"the schema of a call uses {unknown[0]!r}, which is not supported")
    if "$ref" not in schema:
        return schema
    node: Any = root
    for name in str(schema["$ref"]).removeprefix("#/").split("/"):
        if not isinstance(node, Mapping) or name not in node:
            raise BrainError(f"the schema of a call refers to {schema['$ref']!r}, which is not in it")
        node = node[name]
    return resolve(node, root)


def alternatives(schema: Schema) -> list[Schema] | None:
    """The branches of anyOf or oneOf, or of a list of types; None where there is no choice of this kind."""
    if isinstance(schema.get("type"), list):
        return [{**schema, "type": kind} for kind in schema["type"]]
    branches = schema.get("anyOf", schema.get("oneOf"))
    return None if branches is None else list(branches)


def integer_range(schema: Schema) -> tuple[int, int]:
    """Least and greatest integer; an open end is closed OPEN_RANGE away from the other, or from 0."""
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is None:
        low = 0 if high is None or high >= 0 else high - OPEN_RANGE
    if high is None:
        high = low + OPEN_RANGE
    if low > high:
        raise BrainError(f"no integer lies between {low} and {high}")
    return int(low), int(high)


def item_schema(schema: Schema, index: int) -> Schema | None:
    """The schema of element `index`; None where no such element may be."""
    prefix = schema.get("prefixItems", ())
    items = prefix[index] if index < len(prefix) else schema.get("items", True)
    if items is False:
        return None
    return {} if items is True else items


def array_lengths(schema: Schema) -> tuple[int, int]:
    """Least and greatest number of elements; an open end is closed OPEN_ITEMS beyond the least."""
    low = schema.get("minItems", 0)
    prefix = len(schema.get("prefixItems", ()))
    if schema.get("items", True) is False:
        high = min(schema.get("maxItems", prefix), prefix)
    else:
        high = schema.get("maxItems", max(low, prefix) + OPEN_ITEMS)
    if low > high:
        raise BrainError(f"no array has between {low} and {high} elements")
    return low, high


def first_call(schema: Schema) -> Any:
    """The first value of a schema: first alternative, least integer, shortest array and text, required fields only."""
    return draw(schema, schema, None)


def sample_call(schema: Schema, rng: random.Random) -> Any:
    """A value of a schema, every choice uniform among what is legal there. Raises BrainError where nothing is."""
    return draw(schema, schema, rng)


def draw(schema: Schema, root: Schema, rng: random.Random | None) -> Any:
    """A value of `schema`: random, or the first one where there is no generator."""
    schema = resolve(schema, root)
    if "const" in schema:
        return schema["const"]
    choices = schema.get("enum")
    branches = alternatives(schema)
    if choices is not None or branches is not None:
        options = list(choices) if choices is not None else list(branches or ())
        if not options:
            raise BrainError("the schema of a call offers a choice among nothing")
        option = options[0] if rng is None else rng.choice(options)
        return option if choices is not None else draw(option, root, rng)
    kind = schema.get("type", "object" if "properties" in schema else None)
    if kind == "integer":
        low, high = integer_range(schema)
        return low if rng is None else rng.randint(low, high)
    if kind == "boolean":
        return False if rng is None else rng.random() < 0.5
    if kind == "null":
        return None
    if kind == "string":
        low = schema.get("minLength", 0)
        high = min(schema.get("maxLength", low + OPEN_TEXT), low + OPEN_TEXT)
        size = low if rng is None else rng.randint(low, high)
        return "".join(LETTERS[0] if rng is None else rng.choice(LETTERS) for _ in range(size))
    if kind == "array":
        low, high = array_lengths(schema)
        size = low if rng is None else rng.randint(low, high)
        return [draw(item_schema(schema, index) or {}, root, rng) for index in range(size)]
    if kind == "object":
        required = set(schema.get("required", ()))
        fields = {}
        for name, field in schema.get("properties", {}).items():
            if name in required or (rng is not None and rng.random() < 0.5):
                fields[name] = draw(field, root, rng)
        return fields
    raise BrainError(f"cannot draw a value of type {kind!r}; the types of a call are integer, string, array, object")


def violations(schema: Schema, value: Any, root: Schema | None = None, where: str = "call") -> list[str]:
    """Every way in which `value` breaks `schema`, one sentence each; empty for a legal value."""
    root = schema if root is None else root
    schema = resolve(schema, root)
    if "const" in schema:
        return [] if same(value, schema["const"]) else [f"{where} is {value!r}, not {schema['const']!r}"]
    if "enum" in schema:
        legal = any(same(value, option) for option in schema["enum"])
        return [] if legal else [f"{where} is {value!r}, not {_one_of(schema['enum'])}"]
    branches = alternatives(schema)
    if branches is not None:
        found = []
        for branch in branches:
            if not (faults := violations(branch, value, root, where)):
                return []
            found.append(faults)
        found.sort(key=len)
        if len(found) == 1 or (found and len(found[0]) < len(found[1])):
            return found[0]  # those of the alternative that is clearly the nearest
        return [f"{where} fits no alternative: {found}"]
    kind = schema.get("type", "object" if "properties" in schema else None)
    if kind is None:
        return []
    if not of_type(value, kind):
        return [f"{where} is {value!r}, not of type {kind}"]
    if kind == "integer":
        low, high = schema.get("minimum"), schema.get("maximum")
        outside = (low is not None and value < low) or (high is not None and value > high)
        return [f"{where} is {value}, outside {low} to {high}"] if outside else []
    if kind == "string":
        fits = schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value))
        return [] if fits else [f"{where} has {len(value)} characters"]
    if kind == "array":
        fits = schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value))
        faults = [] if fits else [f"{where} has {len(value)} elements"]
        for index, element in enumerate(value):
            item = item_schema(schema, index)
            place = f"{where}[{index}]"
            faults += [f"{place} is one too many"] if item is None else violations(item, element, root, place)
        return faults
    if kind == "object":
        fields = schema.get("properties", {})
        faults = [f"{where} lacks {name!r}" for name in schema.get("required", ()) if name not in value]
        for name, element in value.items():
            if name in fields:
                faults += violations(fields[name], element, root, f"{where}.{name}")
            elif schema.get("additionalProperties", True) is False:
                faults.append(f"{where} has an unknown field {name!r}")
        return faults
    return []


def _one_of(options: Sequence[Any]) -> str:
    """What may be chosen, in words; of a long choice the beginning."""
    words = ", ".join(repr(option) for option in options[:NAMED_OPTIONS])
    rest = len(options) - NAMED_OPTIONS
    return f"one of {words}" + (f" and {rest} more" if rest > 0 else "")


def same(value: Any, other: Any) -> bool:
    """Equality of JSON values: true is not 1."""
    return type(value) is type(other) and bool(value == other)


def of_type(value: Any, kind: str) -> bool:
    """Whether a value parsed from JSON is of a JSON schema type."""
    python = {"integer": int, "string": str, "array": list, "object": dict, "boolean": bool, "null": type(None)}
    if kind not in python:
        raise BrainError(f"cannot check a value of type {kind!r}")
    return isinstance(value, python[kind]) and not (kind == "integer" and isinstance(value, bool))


def too_deep(value: Any) -> bool:
    """Whether lists and objects lie within each other deeper than any reply needs."""
    level = [value]
    for _ in range(DEEPEST):
        inner = [one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list)]
        if not inner:
            return False
        level = [one for several in inner for one in several]
    return True


def bounded(schema: Any, tokens: int) -> Any:
    """The schema with an end to every string and list that has none, so that a value of `tokens` tokens may be whole.

    The strings share half of the tokens, a character each; a list gets `OPEN_LIST` elements. What refers to itself has
    no end all the same. A schema without open ends stays as it is.
    """
    count = _open_strings(schema)
    return _bounded(schema, max(tokens // (2 * count), SHORTEST_TEXT)) if count else _bounded(schema, tokens)


def _open_strings(schema: Any) -> int:
    """How many strings without an end a value may have, each list at its longest."""
    if isinstance(schema, list):
        return sum(map(_open_strings, schema))
    if not isinstance(schema, Mapping):
        return 0
    if _open_text(schema):
        return 1
    times = schema.get("maxItems", OPEN_LIST) if "items" in schema else 1
    return sum(
        (times if name == "items" else 1)
        * (sum(map(_open_strings, value.values())) if name in NAMED else _open_strings(value))
        for name, value in schema.items()
        if name != "enum"
    )


def _bounded(schema: Any, length: int) -> Any:
    def ended(one: dict[str, Any]) -> dict[str, Any]:
        if _open_text(one):
            one["maxLength"] = max(length, one.get("minLength", 0))
        if one.get("type") == "array" and "maxItems" not in one and one.get("items", True) is not False:
            one["maxItems"] = max(OPEN_LIST, one.get("minItems", 0))
        return one

    return rewritten(schema, ended)


def _open_text(schema: Schema) -> bool:
    return schema.get("type") == "string" and not {"maxLength", "enum", "const", "pattern", "format"} & set(schema)


def response_format(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A schema as the structured output of a chat completion."""
    return {"type": "json_schema", "json_schema": {"name": "call", "strict": True, "schema": schema}}


def text_of(choice: Mapping[str, Any], field: str = "message") -> str:
    """What it says in its message, or in the `delta` of a stream; empty where it says nothing."""
    message = choice.get(field)
    content = message.get("content") if isinstance(message, dict) else None
    return content if isinstance(content, str) else ""
