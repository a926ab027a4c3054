"""Receive, decode, admit, answer after storage."""
