"""Legal calls as the agent narrows them: one edit list, one population, one pair of whole vectors."""

EDIT = {
    "type": "object",
    "properties": {
        "layer": {"enum": [3, 7, 11, 20]},
        "part": {"enum": ["attention", "mlp"]},
        "change": {"type": "integer", "minimum": -2, "maximum": 12},
    },
    "required": ["layer", "part", "change"],
    "additionalProperties": False,
}


def function(name, properties):
    """A tool in OpenAI's form, every property required and no other allowed."""
    parameters = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    return {"type": "function", "function": {"name": name, "description": name, "parameters": parameters}}


MUTATE = function(
    "prune_model",
    {
        "operator": {"const": "mutation"},
        "parents": {"type": "array", "items": {"enum": ["c1", "c12"]}, "minItems": 1, "maxItems": 1},
        "edits": {"type": "array", "items": EDIT, "minItems": 2, "maxItems": 4},
    },
)
RECORD = function(
    "record_population",
    {
        "survivors": {
            "type": "array",
            "prefixItems": [{"const": "c1"}, {"enum": ["c2", "c3"]}],
            "items": False,
            "minItems": 2,
            "maxItems": 2,
        },
        "note": {"type": "string", "maxLength": 80},
    },
)


def initialise(length):
    """The call that proposes whole vectors of `length` widths."""
    return function(
        "prune_model",
        {
            "operator": {"const": "initialise"},
            "attention": {
                "type": "array",
                "items": {"type": "integer", "minimum": 1, "maximum": 3},
                "minItems": length,
                "maxItems": length,
            },
            "mlp": {
                "type": "array",
                "items": {"type": "integer", "minimum": 1, "maximum": 48},
                "minItems": length,
                "maxItems": length,
            },
        },
    )


CHOICE = function(
    "evaluate",
    {
        "what": {
            "anyOf": [
                {"type": "integer", "minimum": -5, "maximum": 117},
                {"enum": ["all", "none"]},
                {"oneOf": [{"const": True}, {"type": "null"}]},
            ]
        },
        "flag": {"type": "boolean"},
    },
)
ALL = [MUTATE, RECORD, initialise(30), CHOICE]


def parameters(tool):
    """The argument schema of a tool in OpenAI's form."""
    return tool["function"]["parameters"]
