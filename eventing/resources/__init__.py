"""Typed API objects, one module per API group; defaulting and validation as pure functions."""
