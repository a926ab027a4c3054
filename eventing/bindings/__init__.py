"""Pure functions between an Event and the messages of a transport (CloudEvents protocol bindings)."""
