"""The decoders a network may end with."""
