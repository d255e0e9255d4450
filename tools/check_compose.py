"""Checks a Compose file against the Compose JSON Schema; prints what is wrong, one line each.

    PYTHONPATH=target/tools/python python3 tools/check_compose.py compose_spec.json docker-compose.yml
"""

import json
import sys

import jsonschema
import yaml


def main() -> int:
    schema_file, compose_file = sys.argv[1:]
    with open(schema_file, encoding="utf-8") as file:
        validator = jsonschema.Draft7Validator(json.load(file))
    with open(compose_file, encoding="utf-8") as file:
        compose = yaml.safe_load(file)
    faults = sorted(f"{fault.json_path}: {fault.message}" for fault in validator.iter_errors(compose))
    print("\n".join(faults))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
