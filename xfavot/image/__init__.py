"""Images and face alignment."""
