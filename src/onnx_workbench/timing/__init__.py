"""How long calls take: a race in fresh processes, and what its statistics say."""
