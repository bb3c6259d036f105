"""The drawn world: scenes of coloured shapes, how they are drawn, and captions for them."""
