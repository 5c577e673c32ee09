"""The device side: numpy, pydantic and one inference engine, never torch. Its modules are imported by name."""
