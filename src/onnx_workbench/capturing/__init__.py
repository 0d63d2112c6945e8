"""What torch hands over: the FX graph, its signature and guards, and its exporter in one place."""
