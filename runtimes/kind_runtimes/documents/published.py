"""The schemas that ship: `python -m kind_runtimes.documents.published` writes those that differ from their types."""

from __future__ import annotations

import json
from pathlib import Path

from kind_runtimes.documents.device import DEVICE_DESCRIPTION, DeviceDocument
from kind_runtimes.documents.manifest import ManifestDocument
from kind_runtimes.documents.reports.document import ReportDocument
from kind_runtimes.documents.results import RESULTS_DESCRIPTION, ResultsDocument
from kind_runtimes.documents.schema import Schema, make_schema

PLACE = Path(__file__).parents[1] / "schemas"


def make_schemas() -> dict[str, Schema]:
    """The schema of every document, by name."""
    return {
        "manifest": make_schema(ManifestDocument, "Manifest of a KIND bundle, format 1"),
        "report": make_schema(ReportDocument, "Report of a KIND export, format 2"),
        "results": make_schema(
            ResultsDocument,
            "Measurements of a KIND bundle on one machine, format 1",
            description=RESULTS_DESCRIPTION,
        ),
        "device": make_schema(
            DeviceDocument,
            "One chip of the device table, or a device of a user's own, format 1",
            description=DEVICE_DESCRIPTION,
        )
        | {"additionalProperties": False},
    }


def normalise(schema: object) -> object:
    """A schema but for the order of the names that it demands."""
    if isinstance(schema, list):
        return [normalise(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    return {key: sorted(value) if key == "required" else normalise(value) for key, value in schema.items()}


def main() -> None:
    for name, schema in make_schemas().items():
        file = PLACE / f"{name}.schema.json"
        if not file.exists() or normalise(json.loads(file.read_text(encoding="utf-8"))) != normalise(schema):
            file.write_text(json.dumps(schema, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
