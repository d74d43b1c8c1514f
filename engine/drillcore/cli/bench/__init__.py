"""drillcore bench: throughput on this machine."""
