"""Models: the encoder protocol and the encoders and decoders behind it."""
