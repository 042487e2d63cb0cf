"""The paper's comparisons as suites that one command runs: `kind-train benchmark`."""
