"""What a user can set, and the contracts everything else shares: schema, rows, keys, errors."""
