"""Changes to trained models: fewer layers or pieces, more pieces, other numbers of positions."""

# The ways to make new positions, which `zhbert.surgery.entries.resize_positions` describes.
NEW_POSITIONS = ("hierarchical", "repeat", "interpolate")
