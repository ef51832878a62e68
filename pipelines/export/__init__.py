"""`ratchet export`: weights and rows of a run in the formats that other tools read."""
