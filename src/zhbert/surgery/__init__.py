"""Models made smaller, longer, or with more pieces."""

# How new positions are made: `zhbert.surgery.entries.resize_positions` describes each.
NEW_POSITIONS = ("hierarchical", "repeat")
