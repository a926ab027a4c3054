"""What we test with, and what users may: contract suites, sinks, a virtual clock, a TCP proxy, a pytest plugin."""
