"""Words of libraries and of Python that no message to a user holds."""

from __future__ import annotations

LIBRARY_WORDS = (
    # pydantic
    *("Input should", "valid tuple", "valid integer", "valid string", "valid list", "constrained", "instance of"),
    *("literal", "frozenset", "_parsing", "validator", "dictionary", "model_type", "NoneType", "Value error"),
    *("Field required", "Extra inputs", "pydantic", "validation error", "unable to parse", "[type=", "input_value"),
    *("greater than or equal", "less than or equal", "finite number", "at least 1 item", "tuple", "None"),
    # PyYAML
    *("YAML tag", "mapping values are not allowed", "block end", "block mapping", "flow sequence", "flow mapping"),
    *("scanner", "simple key", "document start", "unhashable", "constructor", "node content", "while scanning"),
    *("while parsing", "could not find expected", "cannot start any token", "undefined alias", "unicode string"),
    # pyarrow, csv, json
    *(
        "ArrowInvalid",
        "pyarrow",
        "Parquet magic",
        "CSV parse",
        "Expecting",
        "Extra data",
        "Errno",
        "instantiate",
        "JSONDecodeError",
    ),
    # Python
    *("Traceback", "Error:", "Exception", "<class", "object at 0x", "dict_keys", "bug in drillcore"),
)
