"""The server on the device: HTTP in front of a `Switcher`. Needs the extra `serve`, never torch."""
