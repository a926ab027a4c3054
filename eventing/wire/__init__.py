"""The lean HTTP/1.1 server and client of the way of an event: httptools parses, uvloop moves bytes.

No task, future or timer per request: a connection's protocol object is the state machine, one sweep serves all time-outs.
"""
