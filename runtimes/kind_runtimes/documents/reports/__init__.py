"""The parts of `report.json`."""
